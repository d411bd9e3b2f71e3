# lgag_jax for NVIDIA GPUs. JAX's CUDA libraries are Python packages, so the host only provides the driver:
#
#   docker build --tag lgag_jax .
#   docker run --rm --gpus=all --volume="$PWD:/work" --user="$(id -u):$(id -g)" lgag_jax --help
#
# For TPUs and CPUs, use the same steps with another base or requirements file.
FROM python:3.11-slim-bookworm

# rasterio's wheels load this library from the system. Any version works.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY requirements.txt requirements-cuda.txt ./
RUN pip install --no-cache-dir --requirement requirements-cuda.txt
COPY . .
RUN pip install --no-cache-dir --no-deps . \
    && useradd --create-home lgag

# Compiled programs are kept in this folder. Mount it to keep them between runs.
ENV XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
# hadolint ignore=DL3066
USER lgag
WORKDIR /work
ENTRYPOINT ["lgag"]
