# One command: docker build -t ws-auth-sidecar .
# The policy is mounted at /etc/ws-auth-sidecar; the root file system may be read-only.

FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The compiler of the scanner; only what it makes leaves this stage. No pins: Debian keeps one
# version of a package, and an older one could not be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# Dependencies first: this layer changes only with the lock files. No pip in the venv itself:
# nothing that runs later can install anything.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r requirements.lock \
    && pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY sidecar sidecar
RUN WS_SIDECAR_COMPILE=require pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/venv/bin/python install --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="ws-auth-sidecar" \
      org.opencontainers.image.description="An authentication sidecar and reverse proxy for WebSocket servers" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=builder /opt/venv /opt/venv
# A number, so that Kubernetes' runAsNonRoot can check it.
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# The admin listener's default address; a policy that moves it needs its own --health-cmd.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9090, timeout=2); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["ws-sidecar"]
CMD ["serve", "--config", "/etc/ws-auth-sidecar"]
