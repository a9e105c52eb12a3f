"""What the huggingface_hub package makes of the hub and the cache that its variables name: for hub_parity_test.cpp.

use_huggingface_hub.py download|cached|file TYPE NAME [PATTERN...]: prints {"path": …}, or {"error": …}.
"""
import json
import sys

from huggingface_hub import hf_hub_download, snapshot_download

action, kind, name, *rest = sys.argv[1:]
try:
    if action == "file":
        path = hf_hub_download(name, rest[0], repo_type=kind)
    else:
        path = snapshot_download(name, repo_type=kind, allow_patterns=rest or None, local_files_only=action == "cached")
    print(json.dumps({"path": str(path)}))
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
