# docker build --target cpu  -t inceptionnext-seg:cpu .
# docker build --target cuda -t inceptionnext-seg:cuda .
# How they are run, with which options and why: docs/installation.md
FROM python:3.11.11-slim-bookworm AS base
# The native operators, and Triton's kernels on a GPU, are compiled on first use; OpenCV loads libGL and GLib.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

FROM base AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE model-index.yml ./
COPY configs configs
COPY inceptionnext_seg inceptionnext_seg
RUN pip wheel --no-deps --wheel-dir /wheels .

# torch first, in a layer that a change to the package leaves alone.
FROM base AS cpu-packages
ARG TORCH=2.14.1
ARG TORCHVISION=0.29.1
RUN python -m venv /opt/venv \
    && pip install --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}" "torchvision==${TORCHVISION}"
COPY --from=wheel /wheels /wheels
RUN pip install "$(echo /wheels/*.whl)[demo,export]"

# PyPI's wheels for Linux bring CUDA's libraries: of the host only the driver is needed.
FROM base AS cuda-packages
ARG TORCH=2.14.1
ARG TORCHVISION=0.29.1
RUN python -m venv /opt/venv \
    && pip install "torch==${TORCH}" "torchvision==${TORCHVISION}"
COPY --from=wheel /wheels /wheels
RUN pip install "$(echo /wheels/*.whl)[demo,export]"

FROM base AS cuda
COPY --from=cuda-packages /opt/venv /opt/venv
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["inceptionnext-seg"]
CMD ["--help"]

# The last stage is what `docker build .` makes.
FROM base AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["inceptionnext-seg"]
CMD ["--help"]
