# The image that every node of a cluster runs: docker build -t rts-batch:0.1.0 .
FROM python:3.11-slim

# KubeRay's probes use wget; Triton builds its driver module with a C compiler when the first kernel runs.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/rts-batch
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY rts_batch rts_batch
COPY jobs jobs
RUN pip install --no-cache-dir -c constraints.txt .

RUN useradd --create-home ray
USER ray
WORKDIR /home/ray
CMD ["rts-batch", "--help"]
