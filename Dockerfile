# streamsal as an image, for Kubernetes and whatever else runs containers. A node with NVIDIA's container runtime lends it
# its GPU: PyTorch brings its own CUDA.
#   docker build -t registry.example/streamsal:0.1 .
#   docker build -t streamsal:cpu --build-arg TORCH=https://download.pytorch.org/whl/cpu .      without CUDA, much smaller
# A tag can be moved. Who needs the same base for ever adds its digest: FROM python:3.11.13-slim-bookworm@sha256:...
FROM python:3.11.13-slim-bookworm

# Another index for pip, whose builds of PyTorch are preferred: 2.11.0+cpu counts as newer than 2.11.0.
ARG TORCH=""

# What streamsal needs comes before streamsal, so that a change of our code leaves these gigabytes alone.
WORKDIR /opt/streamsal
COPY pyproject.toml README.md LICENSE ./
RUN python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; o = p["optional-dependencies"]; \
    print(*p["dependencies"], *o["train"], *o["k8s"], sep="\n")' > needs.txt \
    && pip install --no-cache-dir --disable-pip-version-check ${TORCH:+--extra-index-url "$TORCH"} -r needs.txt
COPY streamsal ./streamsal
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps .

# By number: Kubernetes' runAsNonRoot cannot look up names.
RUN useradd --uid 1000 --create-home streamsal
USER 1000:1000
ENV PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["streamsal"]
