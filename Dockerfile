# The gateway alone, as an unprivileged user.
#
#   docker build -t tollgate .
#   docker run -p 127.0.0.1:8787:8787 -p 127.0.0.1:8788:8788 -e TOLLGATE_ADMIN_TOKEN=... tollgate
#
# Environment
#   TOLLGATE_ADMIN_TOKEN   required here, at least 16 characters: the admin port listens on all addresses
#   OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY
#                          keys of the built-in upstreams; without them the clients' own keys pass
#   TOLLGATE_ALLOW_OPEN=1  required while no virtual key is configured, for everyone who reaches port 8787 can then use
#                          the gateway and spend such keys: set it only where none but trusted clients can (the command
#                          above publishes it on loopback), or make a key in the volume: `tollgate keys create`
#   TOLLGATE_CONFIG        a configuration file mounted into the container
#   OTEL_EXPORTER_OTLP_ENDPOINT
#                          a collector for traces and metrics
# Everything that is kept lies in the volume /var/lib/tollgate.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY gateway gateway
RUN python -m venv /opt/tollgate && /opt/tollgate/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/tollgate --create-home --shell /usr/sbin/nologin tollgate \
    && chmod 700 /var/lib/tollgate
COPY --from=build /opt/tollgate /opt/tollgate
ENV PATH=/opt/tollgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TOLLGATE_LISTEN=0.0.0.0:8787 \
    TOLLGATE_ADMIN=0.0.0.0:8788 \
    TOLLGATE_STATE=/var/lib/tollgate
USER 10001:10001
WORKDIR /var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 8787 8788
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8788/healthz', timeout=2)"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
