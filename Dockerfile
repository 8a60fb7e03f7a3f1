# docker build -t ringlog . && docker run --security-opt seccomp=unconfined -p 9092:9092 -v ringlog:/var/lib/ringlog \
#     ringlog --advertise localhost:9092
# Docker's default seccomp profile forbids io_uring; the broker says so and ends.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --home-dir /var/lib/ringlog --create-home ringlog
COPY --from=build /src/target/release/ringlog /usr/local/bin/ringlog
USER ringlog
VOLUME /var/lib/ringlog
EXPOSE 9092
ENTRYPOINT ["ringlog", "server", "--data-dir", "/var/lib/ringlog", "--listen", "0.0.0.0:9092"]
