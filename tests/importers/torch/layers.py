"""Cases: layers of torch.nn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cases import Case, cases

ACTIVATIONS = cases(
    (2, 6, 5),
    act_relu=nn.ReLU,
    act_relu_inplace=lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)),
    act_relu6=nn.ReLU6,
    act_leaky_relu=lambda: nn.LeakyReLU(0.2),
    act_elu=lambda: nn.ELU(0.7),
    act_selu=nn.SELU,
    act_celu=lambda: nn.CELU(1.3),
    act_gelu=nn.GELU,
    act_gelu_tanh=lambda: nn.GELU("tanh"),
    act_silu=nn.SiLU,
    act_mish=nn.Mish,
    act_sigmoid=nn.Sigmoid,
    act_tanh=nn.Tanh,
    act_hardtanh=lambda: nn.Hardtanh(-0.5, 0.7),
    act_hardsigmoid=nn.Hardsigmoid,
    act_hardswish=nn.Hardswish,
    act_softplus=lambda: nn.Softplus(beta=2.0),
    act_softplus_threshold=lambda: nn.Softplus(beta=2.0, threshold=1.0),
    act_softsign=nn.Softsign,
    act_softshrink=lambda: nn.Softshrink(0.3),
    act_hardshrink=lambda: nn.Hardshrink(0.3),
    act_tanhshrink=nn.Tanhshrink,
    act_logsigmoid=nn.LogSigmoid,
    act_threshold=lambda: nn.Threshold(0.1, 0.0),
    act_threshold_value=lambda: nn.Threshold(0.1, -3.0),
    act_prelu=nn.PReLU,
    act_prelu_channels=lambda: nn.PReLU(6),
    act_rrelu=nn.RReLU,
    act_glu=lambda: nn.GLU(1),
    act_softmax=lambda: nn.Softmax(-1),
    act_softmin=lambda: nn.Softmin(1),
    act_log_softmax=lambda: nn.LogSoftmax(1),
)
CONVOLUTIONS = [
    *cases(
        (2, 4, 17),
        conv1d=lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1),
        conv1d_same=lambda: nn.Conv1d(4, 6, 4, padding="same"),
        conv1d_depthwise=lambda: nn.Conv1d(4, 8, 5, groups=4, dilation=2, bias=False),
        conv1d_circular=lambda: nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
        conv_transpose1d=lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1),
        weight_norm=lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3)),
    ),
    *cases(
        (2, 4, 9, 11),
        conv2d=lambda: nn.Conv2d(4, 6, 3),
        conv2d_stride=lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2)),
        conv2d_dilated=lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2),
        conv2d_groups=lambda: nn.Conv2d(4, 6, 3, groups=2),
        conv2d_same=lambda: nn.Conv2d(4, 6, (2, 4), padding="same", dilation=2),
        conv2d_valid=lambda: nn.Conv2d(4, 6, 3, padding="valid"),
        conv2d_reflect=lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        conv2d_replicate=lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"),
        conv_bn_relu=lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
        conv_transpose2d=lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        conv_transpose2d_groups=lambda: nn.ConvTranspose2d(4, 6, (2, 3), stride=(2, 3), groups=2, dilation=(2, 1)),
    ),
    *cases((4, 9, 11), conv2d_single_image=lambda: nn.Conv2d(4, 6, 3)),
    *cases(
        (1, 3, 5, 6, 7),
        conv3d=lambda: nn.Conv3d(3, 4, (3, 2, 3), padding=(1, 0, 1), stride=(1, 2, 1)),
        conv_transpose3d=lambda: nn.ConvTranspose3d(3, 4, 2, stride=2),
        max_pool3d=lambda: nn.MaxPool3d(2),
        avg_pool3d=lambda: nn.AvgPool3d(2, padding=1),
        adaptive_avg_pool3d=lambda: nn.AdaptiveAvgPool3d((2, 3, 1)),
        batch_norm3d=lambda: nn.BatchNorm3d(3),
        upsample3d=lambda: nn.Upsample(scale_factor=2, mode="trilinear"),
    ),
]
POOLS = [
    *cases(
        (2, 3, 10, 13),
        max_pool2d=lambda: nn.MaxPool2d(3, stride=2, padding=1),
        max_pool2d_ceil=lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
        max_pool2d_ceil_padded=lambda: nn.MaxPool2d(2, stride=3, padding=1, ceil_mode=True),
        max_pool2d_places=lambda: nn.MaxPool2d(3, stride=2, padding=1, return_indices=True),
        max_pool2d_dilated=lambda: nn.MaxPool2d((2, 3), stride=(1, 2), dilation=2),
        avg_pool2d=lambda: nn.AvgPool2d(3, stride=2, padding=1),
        avg_pool2d_valid_count=lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        avg_pool2d_ceil=lambda: nn.AvgPool2d(3, stride=2, ceil_mode=True),
        avg_pool2d_ceil_padded=lambda: nn.AvgPool2d(4, stride=3, padding=2, ceil_mode=True),
        avg_pool2d_ceil_valid=lambda: nn.AvgPool2d(4, stride=3, padding=2, ceil_mode=True, count_include_pad=False),
        avg_pool2d_divisor=lambda: nn.AvgPool2d(2, divisor_override=3),
        adaptive_avg_pool2d_1=lambda: nn.AdaptiveAvgPool2d(1),
        adaptive_avg_pool2d_even=lambda: nn.AdaptiveAvgPool2d((5, 13)),
        adaptive_avg_pool2d_uneven=lambda: nn.AdaptiveAvgPool2d((3, 4)),
        adaptive_avg_pool2d_keep=lambda: nn.AdaptiveAvgPool2d((None, 1)),
        adaptive_max_pool2d_1=lambda: nn.AdaptiveMaxPool2d(1),
        adaptive_max_pool2d_even=lambda: nn.AdaptiveMaxPool2d((5, 1)),
        lp_pool2d=lambda: nn.LPPool2d(2, 3, stride=2),
        zero_pad2d=lambda: nn.ZeroPad2d((1, 2, 0, 3)),
        constant_pad2d=lambda: nn.ConstantPad2d((1, -2, 2, 0), 1.5),
        reflection_pad2d=lambda: nn.ReflectionPad2d((1, 2, 3, 0)),
        replication_pad2d=lambda: nn.ReplicationPad2d(2),
        circular_pad2d=lambda: nn.CircularPad2d((1, 2, 0, 1)),
    ),
    *cases(
        (2, 3, 14),
        max_pool1d=lambda: nn.MaxPool1d(3, padding=1),
        avg_pool1d=lambda: nn.AvgPool1d(4, stride=3),
        avg_pool1d_ceil=lambda: nn.AvgPool1d(4, stride=3, ceil_mode=True, count_include_pad=False),
        adaptive_avg_pool1d=lambda: nn.AdaptiveAvgPool1d(7),
        adaptive_max_pool1d=lambda: nn.AdaptiveMaxPool1d(2),
        reflection_pad1d=lambda: nn.ReflectionPad1d((3, 1)),
        replication_pad1d=lambda: nn.ReplicationPad1d((0, 2)),
    ),
]
NORMS = [
    *cases(
        (2, 6, 5, 4),
        batch_norm2d=lambda: nn.BatchNorm2d(6, eps=1e-3),
        batch_norm2d_plain=lambda: nn.BatchNorm2d(6, affine=False),
        group_norm=lambda: nn.GroupNorm(3, 6),
        group_norm_plain=lambda: nn.GroupNorm(2, 6, affine=False),
        instance_norm2d=lambda: nn.InstanceNorm2d(6, affine=True),
        instance_norm2d_plain=lambda: nn.InstanceNorm2d(6),
        instance_norm2d_tracked=lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        layer_norm=lambda: nn.LayerNorm(4),
        layer_norm_image=lambda: nn.LayerNorm([6, 5, 4]),
        layer_norm_plain=lambda: nn.LayerNorm(4, elementwise_affine=False),
        layer_norm_no_bias=lambda: nn.LayerNorm(4, bias=False),
        rms_norm=lambda: nn.RMSNorm(4),
        local_response_norm=lambda: nn.LocalResponseNorm(3),
        dropout=lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)),
        channel_shuffle=lambda: nn.ChannelShuffle(3),
        softmax2d=nn.Softmax2d,
    ),
    *cases((4, 6), batch_norm1d_flat=lambda: nn.BatchNorm1d(6)),
    *cases((2, 6, 5), batch_norm1d=lambda: nn.BatchNorm1d(6), group_norm_1d=lambda: nn.GroupNorm(2, 6)),
]


class Attention(nn.Module):
    """Multi-head attention with its weights, with masks."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.triu(torch.ones(x.shape[1], memory.shape[1], dtype=torch.bool), 1)
        padding = torch.zeros(x.shape[0], memory.shape[1], dtype=torch.bool)
        out: tuple[Tensor, Tensor] = self.attention(x, memory, memory, attn_mask=mask, key_padding_mask=padding)
        return out


class Recurrent(nn.Module):
    """A recurrent layer; only its sequence is returned, or everything."""

    def __init__(self, layer: nn.RNNBase, everything: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.everything = everything

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, state = self.layer(x)
        if not self.everything:
            return (y,)
        return (y, *state) if isinstance(state, tuple) else (y, state)


class Stateful(nn.Module):
    """A recurrent layer with initial states of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 4, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        y: Tensor = self.layer(x, (h, c))[0]
        return y


SEQUENCES = [
    *cases(
        (2, 5, 8),
        linear=lambda: nn.Linear(8, 3),
        linear_no_bias=lambda: nn.Linear(8, 3, bias=False),
        encoder_layer=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        encoder_layer_norm_first=lambda: nn.TransformerEncoderLayer(
            8, 2, 16, batch_first=True, norm_first=True, activation="gelu"
        ),
        encoder=lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False),
        lstm=lambda: Recurrent(nn.LSTM(8, 4, batch_first=True)),
        lstm_deep=lambda: Recurrent(nn.LSTM(8, 4, 2, bidirectional=True), everything=True),
        gru=lambda: Recurrent(nn.GRU(8, 4, batch_first=True), everything=True),
        gru_bidirectional=lambda: Recurrent(nn.GRU(8, 4, bidirectional=True)),
        rnn=lambda: Recurrent(nn.RNN(8, 4)),
        rnn_relu=lambda: Recurrent(nn.RNN(8, 4, nonlinearity="relu", bias=False), everything=True),
    ),
    *cases((5, 2, 8), (2, 2, 4), (2, 2, 4), lstm_states=Stateful),
    *cases((2, 5, 8), (2, 6, 8), attention=Attention),
    *cases((3, 8), (3, 6), bilinear=lambda: nn.Bilinear(8, 6, 5)),
    *cases((8,), linear_vector=lambda: nn.Linear(8, 3)),
    *cases(torch.tensor([[0, 3, 2], [9, 1, 0]]), embedding=lambda: nn.Embedding(10, 4, padding_idx=0)),
    *cases((2, 8), (2, 5), gru_cell=lambda: nn.GRUCell(8, 5)),
]
RESIZES = cases(
    (1, 2, 5, 6),
    upsample_nearest=lambda: nn.Upsample(scale_factor=2),
    upsample_nearest_size=lambda: nn.Upsample(size=(7, 9)),
    upsample_nearest_exact=lambda: nn.Upsample(size=(7, 9), mode="nearest-exact"),
    upsample_nearest_down=lambda: nn.Upsample(size=(3, 2)),
    upsample_bilinear=lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    upsample_bilinear_corners=lambda: nn.Upsample(size=(8, 11), mode="bilinear", align_corners=True),
    upsample_bilinear_down=lambda: nn.Upsample(size=(3, 4), mode="bilinear"),
    upsample_bilinear_factor=lambda: nn.Upsample(scale_factor=(1.7, 0.6), mode="bilinear"),
    upsample_bicubic=lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    upsample_bicubic_corners=lambda: nn.Upsample(size=(9, 7), mode="bicubic", align_corners=True),
    fold_patches=lambda: nn.Unfold((2, 3), stride=1, padding=1),
)
FOLDS = cases(
    (2, 12, 15), fold=lambda: nn.Fold((4, 6), (2, 2)), fold_padded=lambda: nn.Fold((2, 5), (2, 3), padding=(1, 1))
)
SHUFFLES = cases(
    (2, 8, 4, 6),
    pixel_shuffle=lambda: nn.PixelShuffle(2),
    pixel_unshuffle=lambda: nn.PixelUnshuffle(2),
    flatten=nn.Flatten,
    flatten_middle=lambda: nn.Flatten(1, 2),
    unflatten=lambda: nn.Unflatten(1, (2, 4)),
)
LAYERS: list[Case] = [*ACTIVATIONS, *CONVOLUTIONS, *POOLS, *NORMS, *SEQUENCES, *RESIZES, *FOLDS, *SHUFFLES]
