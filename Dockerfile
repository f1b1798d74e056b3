# The operator and nothing else: `make image`, or docker build -t pat-operator:dev .
# What it builds is what `make build` builds: without what only kubectl-pat needs.

# The version is that of rust-toolchain.toml, which is not copied: rustup would only fetch clippy and rustfmt for it.
# Slim has the C compiler and libc that ring needs. Debian 12 on both sides, so that the libc fits.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# A member of the workspace: Cargo reads its manifest, and builds nothing of it.
COPY tests/control-plane tests/control-plane
RUN cargo build --release --locked --no-default-features --bin pat-operator

# No shell, no package manager; libc, libgcc and CA certificates. Runs as user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY LICENSE /usr/share/doc/pat-operator/LICENSE
COPY --from=build /src/target/release/pat-operator /usr/local/bin/pat-operator
# As a number, so that a kubelet can check runAsNonRoot.
USER 65532:65532
# /livez, /readyz, /metrics
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/pat-operator"]
CMD ["controller"]
