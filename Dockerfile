# docker build -t ringlog . ; how to run it stands in the README under "In a container".
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# What `ringlog --version` says beside the version: --build-arg RINGLOG_COMMIT=$(git rev-parse --short HEAD)
ARG RINGLOG_COMMIT
RUN cargo build --release --locked

FROM debian:bookworm-slim
# The number is fixed so that the owner of a mounted directory can be set from outside.
RUN groupadd --system --gid 10001 ringlog \
    && useradd --system --uid 10001 --gid ringlog --home-dir /var/lib/ringlog ringlog \
    && install -d -m 750 -o ringlog -g ringlog /var/lib/ringlog
COPY --from=build /src/target/release/ringlog /usr/local/bin/ringlog
USER ringlog
# Flags win over these.
ENV RINGLOG_DATA_DIR=/var/lib/ringlog RINGLOG_LISTEN=0.0.0.0:9092
VOLUME /var/lib/ringlog
EXPOSE 9092
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["ringlog", "health"]
ENTRYPOINT ["ringlog"]
CMD ["server"]
