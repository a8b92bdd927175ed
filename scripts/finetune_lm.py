r"""Fine-tune a language model: causal for GPT-2 and its like, masked for BERT.

    accelerate launch scripts/finetune_lm.py --model embedded:gpt2 --task embedded:letters \
        --output out

Plain `python` does too. The same as `hf-bias-patch tune lm`; `--help` lists the options.
"""

from hf_bias_patch.cli.tune import run_script

if __name__ == "__main__":
    run_script("lm")
