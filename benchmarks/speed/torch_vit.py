"""DINOv2's ViT-S/14, written plainly in PyTorch; for torch_trunks.py."""

import torch
from torch import nn
from torch.nn import functional


class Patches(nn.Module):
  """DINOv2's stem: patches of 14 pixels, and position embeddings brought to their grid."""

  def __init__(self, width):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(width, 3, 14, 14) * 0.02)
    self.bias = nn.Parameter(torch.zeros(width))
    self.positions = nn.Parameter(torch.randn(37, 37, width) * 0.02)

  def forward(self, x):
    x = functional.conv2d(x, self.weight, self.bias, 14)
    positions = self.positions.permute(2, 0, 1)[None]
    return x + functional.interpolate(positions, x.shape[2:], mode="bicubic")


class Attention(nn.Module):
  """Attends from every token to every token."""

  def __init__(self, width, heads):
    super().__init__()
    self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
    self.heads = heads

  def forward(self, x):
    heads = (x.shape[0], x.shape[1], self.heads, -1)
    inputs = (layer(x).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value))
    return self.output(functional.scaled_dot_product_attention(*inputs).transpose(1, 2).flatten(2))


class MLP(nn.Module):
  """Two dense layers with GELU between them."""

  def __init__(self, width):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

  def forward(self, x):
    return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
  """DINOv2's block, with a scale per channel."""

  def __init__(self, width, heads):
    super().__init__()
    self.norm1, self.attention = nn.LayerNorm(width, 1e-6), Attention(width, heads)
    self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), MLP(width)
    self.scale1, self.scale2 = (nn.Parameter(torch.ones(width)) for _ in range(2))

  def forward(self, x):
    x = x + self.scale1 * self.attention(self.norm1(x))
    return x + self.scale2 * self.mlp(self.norm2(x))


class FirstStage(nn.Sequential):
  """Three blocks, with the class token before the patches."""

  def __init__(self, width):
    super().__init__()
    self.prefix = nn.Parameter(torch.zeros(1, 1, width))

  def forward(self, x):
    x = x.flatten(2).transpose(1, 2)
    return super().forward(torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1))


class PatchTokens(nn.Module):
  """Leaves out the class token."""

  def forward(self, x):
    return x[:, 1:]


def dinov2_vits14():
  """Builds ViT-S/14 without its last norm; blocks 0 to 11, three a stage."""
  width, heads = 384, 6
  net = nn.Sequential()
  net.add_module("stem", Patches(width))
  for number in range(1, 5):
    stage = nn.Sequential() if number > 1 else FirstStage(width)
    for block in range(3 * number - 3, 3 * number):
      stage.add_module(f"block{block}", Block(width, heads))
    net.add_module(f"stage{number}", stage)
  net.add_module("patches", PatchTokens())
  return net
