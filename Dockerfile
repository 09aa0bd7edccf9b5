# The image: one static binary and nothing else.
#
#   docker build -t goscope .                                  compiles it
#   docker build -t goscope -f Dockerfile --build-arg SOURCE=prebuilt target/x86_64-unknown-linux-gnu/release
#                                                              takes a binary at hand, from the folder that holds it
#
# SOURCE names the stage that has the binary: build or prebuilt.
ARG SOURCE=build

FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
# The image's own toolchain; rust-toolchain.toml would ask for components that a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
ARG REVISION=unknown
# The target is named because static linking is for the program, not for what runs during the build.
RUN target=$(rustc -vV | sed -n 's/^host: //p') && \
    GOSCOPE_COMMIT=$REVISION RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --locked --release --package goscope --target "$target" && \
    install -D "target/$target/release/goscope" /out/goscope

FROM scratch AS prebuilt
COPY goscope /out/goscope

FROM ${SOURCE} AS binary

FROM scratch
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="goscope" \
      org.opencontainers.image.description="Gatekeeper and flight recorder of a Go service" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=binary /out/goscope /goscope
# A number, so that runAsNonRoot can be checked without a passwd file.
USER 65532:65532
ENTRYPOINT ["/goscope"]
CMD ["agent"]
