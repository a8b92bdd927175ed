"""`python -m hf_bias_patch`, the same as the command `hf-bias-patch`."""

from hf_bias_patch.cli import main

if __name__ == "__main__":
    main()
