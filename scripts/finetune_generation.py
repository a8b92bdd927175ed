r"""Fine-tune a model that writes texts from texts: summaries, records in words.

    accelerate launch scripts/finetune_generation.py --model embedded:bart \
        --task embedded:summary --output out

Plain `python` does too. The same as `hf-bias-patch tune generation`; `--help` lists the options.
"""

from hf_bias_patch.cli.tune import run_script

if __name__ == "__main__":
    run_script("generation")
