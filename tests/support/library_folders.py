"""Weights of the default model in the formats of the libraries."""

import shutil

import pytest


@pytest.fixture(scope="session")
def folder(default_model_directory):
    from embedway.catalog import DEFAULT_MODEL, default_catalog
    from embedway.weights.store import StoreSettings, WeightsStore

    store = WeightsStore(StoreSettings(root=default_model_directory))
    return store.find(default_catalog().get(DEFAULT_MODEL).weights).path


@pytest.fixture(scope="session")
def onnx_folder(folder, tmp_path_factory):
    """Export the same weights with torch, to a folder for fastembed."""
    import torch
    from transformers import AutoModel

    target = tmp_path_factory.mktemp("onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(folder / name, target / name)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class ByPosition(torch.nn.Module):
        """Adapter: the exporter passes inputs by position, the encoder accepts them by name."""

        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, ids, mask, types):
            return self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    ids = torch.ones((2, 8), dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        ByPosition(),
        (ids, ids, torch.zeros_like(ids)),
        str(target / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "b", 1: "s"} for name in [*names, "last_hidden_state"]},
        dynamo=False,
    )
    return target
