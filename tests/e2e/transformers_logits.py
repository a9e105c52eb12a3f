"""Logits of a saved model by HF transformers. Run by transformers_test.cpp: MODEL_FOLDER BATCH OUT."""
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

torch.use_deterministic_algorithms(True)
folder, batch_file, out = sys.argv[1:]
batch = load_file(batch_file)
model, report = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not report[kind], (kind, report[kind])
model.eval()
with torch.no_grad():
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
save_file({"logits": logits.float().contiguous()}, out)
