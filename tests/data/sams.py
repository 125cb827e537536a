"""SAM and SAM 2 at the smallest sizes their configs allow, with random weights: folders as transformers saves them."""

from pathlib import Path


def write(folder: Path, kind: str, seed: int = 0, scale: float | None = 0.5) -> Path:
    """A folder with config.json and model.safetensors; `kind` is sam, sam2 or sam2_video. Needs torch, transformers.

    `scale` is the standard deviation of every weight. None: one by the layer's inputs, with which masks depend on their
    points, and normalisations near 1.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # threads that wait for each other take longer than the work
    model = {"sam": sam, "sam2": sam2, "sam2_video": sam2_video}[kind](transformers)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():  # its own initialisation leaves every mask empty or full
        drawn = torch.randn(value.shape, generator=generator)
        if scale is not None:
            value.copy_(drawn * scale)
        elif value.ndim > 1:
            value.copy_(drawn if "embed" in name or "token" in name else drawn / value[0].numel() ** 0.5)
        else:
            value.copy_(drawn * 0.1 + float(name.endswith("weight")))
    model.save_pretrained(folder)
    return folder


DECODER = dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)


def sam(transformers):
    vision = dict(
        hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8,
        window_size=4, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=32,
    )  # fmt: skip
    prompt = dict(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER | {"num_hidden_layers": 2}
    )
    return transformers.SamModel(config)


def sam2_sections() -> dict:
    backbone = dict(
        model_type="sam2_hiera_det_model", hidden_size=8, num_attention_heads=1, image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 2, 2],
        window_size_per_stage=[4, 4, 4, 2], global_attention_blocks=[3],
    )  # fmt: skip
    vision = dict(
        model_type="sam2_vision_model", backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=16,
    )  # fmt: skip
    prompt = dict(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    return dict(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER)


def sam2(transformers):
    return transformers.Sam2Model(transformers.Sam2Config(**sam2_sections()))


def sam2_video(transformers):
    """What the published folders of SAM 2 hold: the image model, and memory for clips."""
    config = transformers.Sam2VideoConfig(
        **sam2_sections(), image_size=64, memory_attention_hidden_size=16, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16, memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=16, memory_encoder_output_channels=8, mask_downsampler_embed_dim=16,
        memory_fuser_num_layers=1, memory_fuser_embed_dim=16, memory_fuser_intermediate_dim=16,
    )  # fmt: skip
    return transformers.Sam2VideoModel(config)
