"""ResNet-50, EfficientNet-Lite0 and DINOv2's ViT-S/14, written plainly in PyTorch, and their speed.

The first two have output stride 16; the third has a patch per 14 pixels.

Run by the Python that benchmarks.speed is given with --torch; nothing of this project is imported.
"""

import json
import os
import statistics
import sys
import time

# This file's folder comes last: torch.compile would take its profile.py for Python's.
sys.path.append(sys.path.pop(0))
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_vit import dinov2_vits14

# (repeats, kernel, stride, dilation, expansion, width) of each group of blocks, grouped by stage; where
# the stride is beyond 16, blocks are dilated instead, from the second of the group on.
_LITE0 = (
  ((1, 3, 1, 1, 1, 16), (2, 3, 2, 1, 6, 24)),
  ((2, 5, 2, 1, 6, 40),),
  ((3, 3, 2, 1, 6, 80), (3, 5, 1, 1, 6, 112)),
  ((1, 5, 1, 1, 6, 192), (3, 5, 1, 2, 6, 192), (1, 3, 1, 2, 6, 320)),
)
_RESNET50 = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 1))


def conv(inputs, outputs, kernel, stride=1, dilation=1, groups=1):
  """Makes a convolution without bias that keeps the size but for the stride."""
  padding = dilation * (kernel // 2)
  return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


class Stem(nn.Module):
  """A convolution with stride 2, and for ResNet-50 a pooling with stride 2."""

  def __init__(self, width, kernel, epsilon, activation, pooled):
    super().__init__()
    self.conv, self.norm = conv(3, width, kernel, 2), nn.BatchNorm2d(width, epsilon)
    self.activation, self.pooled = activation, pooled

  def forward(self, x):
    x = self.activation(self.norm(self.conv(x)))
    return functional.max_pool2d(x, 3, 2, 1) if self.pooled else x


class Bottleneck(nn.Module):
  """ResNet-50's block."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1, self.norm1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
    self.conv2, self.norm2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
    self.conv3, self.norm3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
    self.widens = stride != 1 or inputs != 4 * width
    if self.widens:
      self.downsample_conv = conv(inputs, 4 * width, 1, stride)
      self.downsample_norm = nn.BatchNorm2d(4 * width)

  def forward(self, x):
    y = functional.relu(self.norm1(self.conv1(x)))
    y = functional.relu(self.norm2(self.conv2(y)))
    y = self.norm3(self.conv3(y))
    return functional.relu(y + (self.downsample_norm(self.downsample_conv(x)) if self.widens else x))


class InvertedResidual(nn.Module):
  """EfficientNet-Lite0's block."""

  def __init__(self, inputs, width, kernel, stride, dilation, expansion):
    super().__init__()
    wide = inputs * expansion
    self.expands, self.adds = expansion > 1, stride == 1 and inputs == width
    if self.expands:
      self.expand, self.expand_norm = conv(inputs, wide, 1), nn.BatchNorm2d(wide, 1e-3)
    self.depthwise = conv(wide, wide, kernel, stride, dilation, groups=wide)
    self.depthwise_norm = nn.BatchNorm2d(wide, 1e-3)
    self.project, self.project_norm = conv(wide, width, 1), nn.BatchNorm2d(width, 1e-3)

  def forward(self, x):
    y = functional.relu6(self.expand_norm(self.expand(x))) if self.expands else x
    y = functional.relu6(self.depthwise_norm(self.depthwise(y)))
    y = self.project_norm(self.project(y))
    return x + y if self.adds else y


def resnet50():
  """Builds ResNet-50 without its classifier, the last stage without its stride."""
  net = nn.Sequential()
  net.add_module("stem", Stem(64, 7, 1e-5, functional.relu, True))
  inputs = 64
  for number, (depth, width, stride) in enumerate(_RESNET50, start=1):
    stage = nn.Sequential()
    for block in range(depth):
      stage.add_module(f"block{block}", Bottleneck(inputs, width, 1 if block else stride))
      inputs = 4 * width
    net.add_module(f"stage{number}", stage)
  return net


def efficientnet_lite0():
  """Builds EfficientNet-Lite0 without its classifier, the last stage dilated."""
  net = nn.Sequential()
  net.add_module("stem", Stem(32, 3, 1e-3, functional.relu6, False))
  inputs, index = 32, 0
  for number, groups in enumerate(_LITE0, start=1):
    stage = nn.Sequential()
    for repeats, kernel, stride, dilation, expansion, width in groups:
      for repeat in range(repeats):
        block = InvertedResidual(inputs, width, kernel, 1 if repeat else stride, dilation, expansion)
        stage.add_module(f"block{index}", block)
        inputs, index = width, index + 1
    net.add_module(f"stage{number}", stage)
  return net


TRUNKS = {
  "resnet50": resnet50, "efficientnet_lite0": efficientnet_lite0, "dinov2_vits14": dinov2_vits14,
}


def build(settings):
  """Returns a trunk and images of the settings' size, in their layout, with stored statistics."""
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.manual_seed(0)
  net = TRUNKS[settings["trunk"]]().eval()
  images = torch.rand(settings["batch"], 3, settings["size"], settings["size"])
  if settings["layout"] == "channels_last":
    net = net.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
  return net, images


def rate(settings):
  """Returns images a second, without gradients; compiled if the settings say so."""
  net, images = build(settings)
  net = torch.compile(net) if settings["compile"] else net
  with torch.inference_mode():
    net(images)
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < settings["seconds"]:
      net(images)
      done += len(images)
  return {"rate": done / passed}


def stored_shape(value):
  """Returns a parameter's shape, a dense layer's as that of a 1 x 1 convolution."""
  return [*value.shape, 1, 1] if value.ndim == 2 else list(value.shape)


def measure(settings):
  """Times gradients of all parameters of mean(square(last tap)), f32."""
  net, images = build(settings)
  run = torch.compile(net) if settings["compile"] else net
  batch, times = len(images), []
  for _ in range(settings["repeats"] + 1):  # The first warms up.
    start = time.perf_counter()
    net.zero_grad()
    run(images).square().mean().backward()
    times.append(time.perf_counter() - start)
  return {
    "images_per_s": batch / statistics.median(times[1:]), "times": times[1:],
    "parameters": {name: stored_shape(value) for name, value in net.named_parameters()},
    "flops": flops(net, images),
    "threads": torch.get_num_threads(), "torch": torch.__version__,
  }


def flops(net, images):
  """Counts the FLOPs of the forward pass's products and convolutions."""
  # Attention written out: the counter does not know its fused form on CPU.
  with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
    net(images)
  return counter.get_total_flops()


if __name__ == "__main__":
  given = json.loads(sys.argv[1])
  print(json.dumps(rate(given) if "seconds" in given else measure(given)))
