"""The files in the folder of a model. Importing this imports nothing else."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "tokenizer.safetensors"
WORLD_MODEL_FILE = "world_model.safetensors"
