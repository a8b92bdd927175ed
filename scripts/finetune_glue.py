r"""Fine-tune a checkpoint on a GLUE task, or on your own data of that shape.

    accelerate launch scripts/finetune_glue.py --model embedded:bert --task embedded:opinion \
        --output out

Plain `python` does too. The same as `hf-bias-patch tune glue`; `--help` lists the options.
"""

from hf_bias_patch.cli.tune import run_script

if __name__ == "__main__":
    run_script("glue")
