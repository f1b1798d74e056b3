# The image of the operator: `make image`, or docker build -t pat-operator:dev .
# Builds the same as `make build`: without the dependencies of kubectl-pat.

# The version of rust-toolchain.toml. That file is not copied, because rustup would then download clippy and rustfmt.
# The slim image has the C compiler and libc that ring needs. Both stages use Debian 12, so that the libc is the same.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo reads the manifest of each member of the workspace, but builds nothing of this one.
COPY tests/control-plane tests/control-plane
RUN cargo build --release --locked --no-default-features --bin pat-operator

# Has libc, libgcc and CA certificates, but no shell and no package manager. Runs as user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY LICENSE /usr/share/doc/pat-operator/LICENSE
COPY --from=build /src/target/release/pat-operator /usr/local/bin/pat-operator
# A number, so that a kubelet can check runAsNonRoot.
USER 65532:65532
# /livez, /readyz, /metrics
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/pat-operator"]
CMD ["controller"]
