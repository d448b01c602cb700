"""One naming for the weights of every ConvNeXt and InceptionNeXt: that of the released InceptionNeXt weights."""
import re

# From the names of facebookresearch/ConvNeXt (dwconv, pwconv1), of OpenMMLab (depthwise_conv, pointwise_conv1) and of
# timm (conv_dw) to the names of the released InceptionNeXt weights, which match no pattern here and stay as they are.
KEY_MAP = (
    (re.compile(r'^downsample_layers\.0\.'), 'stem.'),
    (re.compile(r'^downsample_layers\.(\d+)\.'), r'stages.\1.downsample.'),
    (re.compile(r'^(stages\.\d+)\.(\d+\.)'), r'\1.blocks.\2'),
    (re.compile(r'\.(?:dwconv|depthwise_conv|conv_dw)\.'), '.token_mixer.'),
    (re.compile(r'\.(?:pwconv|pointwise_conv)(\d)\.'), r'.mlp.fc\1.'),
)


def to_metanext_names(state_dict, prefix=''):
    """Rename, in place, the keys under ``prefix`` from any ConvNeXt naming to ours; MLP weights become 1×1 kernels."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        name = key[len(prefix):]
        for pattern, replacement in KEY_MAP:
            name = pattern.sub(replacement, name)
        value = state_dict.pop(key)
        if re.search(r'\.mlp\.fc\d\.weight$', name) and value.ndim == 2:
            value = value[:, :, None, None]
        state_dict[prefix + name] = value
