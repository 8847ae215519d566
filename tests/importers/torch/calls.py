"""Cases: functions and methods of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .cases import Case, functions


def assigned(x: torch.Tensor) -> torch.Tensor:
    """Writes into a copy, in the ways that slices allow."""
    y = x.clone()
    y[:, 1] = 0.0
    y[:, 2:4] = x[:, :2]
    y[..., ::2] *= 2
    y[y > 1.5] = 1.5
    y[1, [0, 3]] = 7.0
    return y


UNARY = [
    *functions(
        (3, 7),
        f_abs=torch.abs,
        f_neg=lambda x: -x,
        f_exp=torch.exp,
        f_exp2=torch.exp2,
        f_expm1=torch.expm1,
        f_erf=torch.erf,
        f_erfc=torch.erfc,
        f_sin=torch.sin,
        f_cos=torch.cos,
        f_tan=lambda x: torch.tan(x / 2),
        f_sinh=torch.sinh,
        f_cosh=torch.cosh,
        f_atan=torch.atan,
        f_asinh=torch.asinh,
        f_floor=torch.floor,
        f_ceil=torch.ceil,
        f_round=torch.round,
        f_trunc=lambda x: torch.trunc(3 * x),
        f_frac=lambda x: torch.frac(3 * x),
        f_sign=torch.sign,
        f_square=torch.square,
        f_logit=lambda x: torch.logit(torch.sigmoid(x)),
        f_isnan=torch.isnan,
        f_nan_to_num=lambda x: torch.nan_to_num(x / 0, 0.5, 3.0, -3.0),
        f_asin=lambda x: torch.asin(torch.tanh(x)) + torch.acos(torch.tanh(x)) * 2 + torch.atanh(torch.tanh(x)),
    ),
    *functions(
        torch.linspace(0.1, 3.0, 21).reshape(3, 7),
        f_log=torch.log,
        f_log2=torch.log2,
        f_log10=torch.log10,
        f_log1p=torch.log1p,
        f_sqrt=torch.sqrt,
        f_rsqrt=torch.rsqrt,
        f_reciprocal=torch.reciprocal,
        f_pow=lambda x: x**2 + x**3 + x**0.5 + x**-1 + x**-0.5 + x**1.7 + 2**x,
    ),
]
BINARY = [
    *functions(
        (2, 3, 4),
        (3, 1),
        f_add=lambda a, b: a + b + 2,
        f_add_alpha=lambda a, b: torch.add(a, b, alpha=2.5),
        f_sub=lambda a, b: 1 - (a - b),
        f_mul=lambda a, b: a * b * 0.5,
        f_div=lambda a, b: a / (b * b + 1),
        f_div_floor=lambda a, b: torch.div(a, b, rounding_mode="floor"),
        f_div_trunc=lambda a, b: torch.div(a, b, rounding_mode="trunc"),
        f_remainder=torch.remainder,
        f_fmod=torch.fmod,
        f_maximum=torch.maximum,
        f_minimum=torch.minimum,
        f_compare=lambda a, b: torch.stack([a > b, a >= b, (a < b).expand_as(a), a <= b, a == b, a != b]),
        f_compare_number=lambda a, b: (a > 0.5) & (b < 0.1) | ~(a <= -1) ^ (b == 0),
        f_where=lambda a, b: torch.where(a > b, a, b * 2),
        f_where_number=lambda a, b: torch.where(a > 0, 1.0, b),
        f_masked_fill=lambda a, b: a.masked_fill(a > b, -1.0),
        f_logical=lambda a, b: torch.logical_or(torch.logical_and(a > 0, b > 0), torch.logical_not(a > b)),
        f_clamp=lambda a, b: a.clamp(-0.5, 0.5) + b.clamp(min=0) + b.clamp(max=0.1),
        f_clamp_tensor=lambda a, b: torch.clamp(a, min=b, max=b + 1),
        f_addcmul=lambda a, b: torch.addcmul(a, b, b, value=0.5) + torch.lerp(a, b.expand_as(a), 0.3),
        f_atan_ratio=lambda a, b: torch.hypot(a, b.expand_as(a)),
        f_matmul_broadcast=lambda a, b: a.transpose(1, 2) @ b,
        f_cosine=lambda a, b: F.cosine_similarity(a, b, dim=1),
        f_promote=lambda a, b: a + (b > 0) + torch.arange(4),
        f_cast=lambda a, b: (a * 3).to(torch.int32).float() + b.double().float() + (a > 0).float(),
    ),
]
PRODUCTS = [
    *functions(
        (2, 3, 4),
        (2, 4, 5),
        f_bmm=torch.bmm,
        f_matmul=torch.matmul,
        f_einsum=lambda a, b: torch.einsum("bij,bjk->bki", a, b),
        f_einsum_heads=lambda a, b: torch.einsum("bhd,bde->he", a, b),
        f_baddbmm=lambda a, b: torch.baddbmm(torch.ones(2, 3, 5), a, b, beta=0.5, alpha=2),
        f_vector=lambda a, b: a[0, 0] @ b[0],
        f_dot=lambda a, b: torch.dot(a[0, 0], b[0, :, 0]) + torch.mv(a[0], b[0, :, 0]),
        f_outer=lambda a, b: torch.outer(a[0, 0], b[0, 0]),
        f_addmm=lambda a, b: torch.addmm(b[0, 0], a[0], b[0]),
    ),
    *functions(
        (2, 2, 5, 4),
        (2, 2, 6, 4),
        f_attention=lambda q, k: F.scaled_dot_product_attention(q, k, k * 2),
        f_attention_mask=lambda q, k: F.scaled_dot_product_attention(q, k, k, torch.ones(5, 6).tril(2).bool()),
        f_attention_term=lambda q, k: F.scaled_dot_product_attention(q, k, k, q @ k.transpose(2, 3), scale=0.3),
        f_attention_causal=lambda q, k: F.scaled_dot_product_attention(q, q, q, is_causal=True),
        f_attention_groups=lambda q, k: F.scaled_dot_product_attention(q, k[:, :1], k[:, :1], enable_gqa=True),
    ),
]
IMAGES = functions(
    (1, 2, 9, 12),
    f_antialias=lambda x: F.interpolate(x, size=(5, 20), mode="bilinear", antialias=True),
    f_antialias_cubic=lambda x: F.interpolate(x, scale_factor=0.4, mode="bicubic", antialias=True),
    f_antialias_aligned=lambda x: F.interpolate(x, size=(4, 5), mode="bilinear", antialias=True, align_corners=True),
)


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions as in the first Llama."""
    turns = torch.polar(torch.ones(4, 2), torch.outer(torch.arange(4.0), torch.tensor([1.0, 0.1])))
    pairs = torch.view_as_complex(x.reshape(2, 4, 2, 2))
    return torch.view_as_real(pairs * turns).flatten(2)


FOURIER = functions(
    (2, 4, 4),
    f_rotated=rotated,
    f_mixed=lambda x: torch.fft.fftn(x, dim=(1, 2)).real,
    f_round_trip=lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), n=4, dim=1) + torch.fft.ifft(x, dim=2).imag,
    f_odd=lambda x: torch.fft.irfft2(torch.fft.rfft2(x[:, :3, :3], norm="ortho") * 2, s=(3, 3), norm="ortho"),
    f_filter=lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(torch.ones(3), torch.arange(3.0))),
    f_magnitude=lambda x: (torch.fft.fft(x).conj() - x).abs(),
    f_decided_complex=lambda x: (torch.fft.fft(x) * torch.complex(torch.zeros(4), torch.arange(4.0)).exp()).real,
    f_stft=lambda x: torch.stft(x.flatten(1), 8, 4, window=torch.hann_window(8), return_complex=True).abs() ** 2,
)
SAMPLING = functions(
    (1, 2, 5, 6),
    torch.linspace(-1.1, 1.1, 24).reshape(1, 3, 4, 2),
    f_grid_sample=lambda x, g: F.grid_sample(x, g, align_corners=False),
    f_grid_sample_border=lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=True),
    f_grid_sample_nearest=lambda x, g: F.grid_sample(x, g, mode="nearest", align_corners=False),
)
REDUCTIONS = functions(
    (2, 3, 4, 5),
    f_sum=lambda x: x.sum() + x.sum(1).sum(-1, keepdim=True).sum(),
    f_sum_axes=lambda x: x.sum((0, 2), keepdim=True),
    f_sum_bool=lambda x: (x > 0).sum(1),
    f_mean=lambda x: x.mean() + x.mean((2, 3)),
    f_mean_keep=lambda x: x.mean(-1, keepdim=True),
    f_prod=lambda x: x.prod(1),
    f_amax=lambda x: x.amax((1, 2)) - x.amin((1, 2)),
    f_max=lambda x: x.max() - x.min(),
    f_max_axis=lambda x: x.max(2),
    f_min_axis=lambda x: x.min(1, keepdim=True)[0],
    f_argmax=lambda x: (x.argmax(), x.argmax(1), x.argmin(-1, keepdim=True)),
    f_var=lambda x: x.var(1) + x.var((1,), unbiased=False),
    f_std=lambda x: x.std((2, 3), keepdim=True) + x.std(),
    f_var_mean=lambda x: torch.var_mean(x, 1),
    f_norm=lambda x: x.norm(dim=1) + x.norm(p=1, dim=1) + x.norm(p=3, dim=1),
    f_normalize=lambda x: F.normalize(x, dim=1),
    f_logsumexp=lambda x: torch.logsumexp(x, 1),
    f_any_all=lambda x: ((x > 1).any(), (x > -1).all(1), (x > 2).any(2, keepdim=True)),
    f_cumsum=lambda x: torch.cumsum(x, 2),
    f_topk=lambda x: torch.topk(x, 2, dim=-1),
    f_topk_smallest=lambda x: torch.topk(x, 3, dim=1, largest=False)[0],
    f_sort=lambda x: torch.sort(x, -1, descending=True),
    f_softmax=lambda x: F.softmax(x, 1) + x.log_softmax(2),
)
MOVES = functions(
    (2, 6, 4),
    f_view=lambda x: x.view(x.size(0), -1),
    f_reshape=lambda x: x.reshape(-1, 3, 2, 2),
    f_flatten=lambda x: torch.flatten(x, 1),
    f_permute=lambda x: x.permute(2, 0, 1).contiguous(),
    f_transpose=lambda x: x.transpose(-1, 1),
    f_t=lambda x: x[0].t() + x[1].T,
    f_squeeze=lambda x: x.unsqueeze(0).unsqueeze(-1).squeeze(0).squeeze(-1),
    f_movedim=lambda x: torch.movedim(x, 0, 2),
    f_expand=lambda x: x[:, :, None].expand(-1, -1, 3, -1),
    f_expand_as=lambda x: x[:1].expand_as(x) + torch.broadcast_to(x[:, :1], x.shape),
    f_repeat=lambda x: x.repeat(2, 1, 3),
    f_tile=lambda x: torch.tile(x, (2, 2)),
    f_repeat_interleave=lambda x: x.repeat_interleave(2, dim=1),
    f_chunk=lambda x: torch.chunk(x, 4, 1)[1:],
    f_split=lambda x: x.split(4, 1),
    f_split_sizes=lambda x: x.split([1, 2, 3], 1),
    f_unbind=lambda x: x.unbind(1)[2],
    f_stack=lambda x: torch.stack([x, x + 1], 1),
    f_cat=lambda x: torch.cat([x, x * 2, x[:, :1]], 1),
    f_hstack=lambda x: torch.hstack([x, x]) + torch.cat([x, x], -2),
    f_slice=lambda x: x[:, 1:5:2, -3:],
    f_slice_steps=lambda x: x[..., ::3],
    f_select=lambda x: x[:, -1] + x[0, 2],
    f_narrow=lambda x: x.narrow(1, 2, 3),
    f_flip=lambda x: x.flip(1, 2),
    f_roll=lambda x: torch.roll(x, (1, -2), (1, 2)) + torch.roll(x, 5),
    f_rot90=lambda x: torch.rot90(x, 1, (1, 2)),
    f_pad=lambda x: F.pad(x, (1, 2))[:, :, :4] + F.pad(x, (1, 1), value=2.0)[..., 2:],
    f_pad_reflect=lambda x: F.pad(x, (2, 1), mode="reflect"),
    f_index_select=lambda x: x.index_select(1, torch.tensor([3, 0, 3])),
    f_index_list=lambda x: x[:, [0, 2, 5]],
    f_index_pairs=lambda x: x[:, torch.tensor([0, -2]), torch.tensor([1, 3])],
    f_index_apart=lambda x: x[torch.tensor([1, 0]), :, torch.tensor([1, 3])],
    f_index_negative=lambda x: x[torch.arange(2)[:, None], torch.tensor([[0, 1], [-1, -2]])],
    f_gather=lambda x: torch.gather(x, 1, torch.tensor([[[0, 1, 2, 3]], [[5, 4, 3, 2]]])),
    f_take_along=lambda x: torch.take_along_dim(x, x.argsort(1), 1),
    f_one_hot=lambda x: F.one_hot(torch.tensor([0, 2, 1]), 4) + x.argmax(-1)[0, :3, None],
    f_assign_slice=assigned,
    f_meshgrid=lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[1],
    f_tril=lambda x: x.tril() + x.triu(1) * 2,
    f_diagonal=lambda x: torch.diagonal(x, dim1=1, dim2=2),
    f_unfold=lambda x: x.unfold(1, 3, 2),
    f_zeros_like=lambda x: x + torch.zeros_like(x) + torch.ones(4) + torch.full((4,), 2.0) + torch.eye(6, 4),
    f_arange=lambda x: x + torch.arange(4) * 0.5 + torch.linspace(0, 1, 4) + torch.arange(6.0)[:, None],
    f_new=lambda x: x.new_zeros(4) + x.new_ones(6, 1) + x.new_full((1,), 3.0) + x,
    f_decided=lambda x: x[:, torch.tril_indices(6, 6, -1)[0, :4]],
    f_constant=lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0]),
    f_scatter=lambda x: x.scatter(1, torch.zeros(2, 1, 4, dtype=torch.long), 9.0),
    f_bool_mask=lambda x: (x > 0).float() * x,
    f_interpolate=lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    f_interpolate_nearest=lambda x: F.interpolate(x, size=7),
    f_dropout=lambda x: F.dropout(x, 0.5, training=False),
    f_layer_norm=lambda x: F.layer_norm(x, (6, 4)),
    f_own_statistics=lambda x: F.batch_norm(x, None, None, torch.arange(6.0), torch.ones(6), True),
    f_outputs=lambda x: {"first": x + 1, "second": (x * 2, [x - 1])},
)


CALLS: list[Case] = [*UNARY, *BINARY, *PRODUCTS, *IMAGES, *FOURIER, *SAMPLING, *REDUCTIONS, *MOVES]
