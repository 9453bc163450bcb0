# The whole workflow with the pins of requirements.txt: docs/container.md says how to use it.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# torch as PyPI has it brings CUDA with it, and runs on a CPU too. For an image of a
# fraction of the size, without CUDA, name PyTorch's index of CPU builds here.
ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# On a GPU torch.compile needs a C compiler. Its version is the base image's.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/similarity
COPY requirements.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --requirement requirements.txt

COPY Snakefile ./
COPY config ./config
COPY envs ./envs
COPY profiles ./profiles
COPY rules ./rules
COPY workflow_scripts ./workflow_scripts

# Results go where the folder of a study is mounted.
WORKDIR /study
ENTRYPOINT ["snakemake", "--snakefile", "/opt/similarity/Snakefile", \
    "--workflow-profile", "/opt/similarity/profiles/default"]
CMD ["--cores", "all"]
