# A build stage with pip and the hash-pinned requirements, and an image that holds Python, the libraries and the package only.
FROM python:3.13-slim AS build
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv --without-pip /opt/forwarder \
    && python -m pip --python /opt/forwarder/bin/python install --no-cache-dir --require-hashes -r /tmp/requirements.txt
COPY forwarder /opt/forwarder/app/forwarder
RUN /opt/forwarder/bin/python -m compileall -q /opt/forwarder/app

FROM python:3.13-slim
LABEL org.opencontainers.image.title="mailkey-forwarder" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --home-dir /etc/forwarder --shell /usr/sbin/nologin forwarder \
    && install -d -o forwarder -g forwarder /etc/forwarder
COPY --from=build /opt/forwarder /opt/forwarder
# Inside, always port 25 on every address: which port that is outside, and on which address, is the engine's to say.
ENV PATH=/opt/forwarder/bin:$PATH \
    PYTHONPATH=/opt/forwarder/app \
    PYTHONUNBUFFERED=1 \
    FORWARDER_LISTEN=0.0.0.0:25
USER 1000:1000
WORKDIR /etc/forwarder
# forwarder.toml, its keys and its state: `docker run ... init` writes the first two.
VOLUME /etc/forwarder
EXPOSE 25
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s \
    CMD ["python", "-c", "import smtplib; smtplib.SMTP('127.0.0.1', 25, timeout=8).quit()"]
ENTRYPOINT ["python", "-P", "-m", "forwarder"]
CMD ["serve", "--config", "/etc/forwarder/forwarder.toml"]
