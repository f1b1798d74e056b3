//! The PATs that exist before a measurement. They differ only in their names.

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    crowd::each,
    plane::Plane,
    progress::Progress,
    wire::{Version, pats},
};

/// A PAT, and its Secret once it exists.
#[derive(Clone, Debug)]
pub struct Token {
    /// metadata.name
    pub name: String,
    /// The PAT's uid and version.
    pub pat: Version,
    /// The Secret's uid and version.
    pub secret: Version,
}

/// The name of a PAT. All names have the same length.
fn name(index: usize) -> String {
    format!("pat-{index:05}")
}

/// Creates `count` PATs with scopes and a rotation, as users do.
pub async fn create(plane: &Plane, namespace: &str, count: usize) -> anyhow::Result<Vec<Token>> {
    let spec = json!({
        "description": "Deploys from the pipeline.",
        "scopes": ["deploy:staging", "registry:read"],
        "audiences": ["https://registry.example.com"],
        "rotation": {"interval": "30d"},
    });
    create_with(plane, namespace, count, spec).await
}

/// Creates `count` PATs with this spec.
pub async fn create_with(plane: &Plane, namespace: &str, count: usize, spec: Value) -> anyhow::Result<Vec<Token>> {
    let progress = Progress::begin(format!("creating {count} tokens in {namespace}"), count);
    let (wire, path) = (plane.wire()?, pats(namespace));
    let work = move |index| {
        let (wire, path, spec) = (wire.clone(), path.clone(), spec.clone());
        async move {
            let name = name(index);
            let body = json!({
                "apiVersion": "pat-operator.io/v1alpha1",
                "kind": "PersonalAccessToken",
                "metadata": {"name": name},
                "spec": spec,
            });
            let pat = wire.create(&path, body.to_string().into_bytes()).await.context("creating a token")?;
            Ok(Token { name, pat, secret: Version::default() })
        }
    };
    each((0..count).collect(), &progress, work).await
}

/// Requests a rotation of each PAT, by `spec.rotateIfIssuedBefore`.
pub async fn ask_for_rotation(plane: &Plane, namespace: &str, tokens: Vec<Token>) -> anyhow::Result<Vec<Token>> {
    let progress = Progress::begin(format!("requesting {} rotations in {namespace}", tokens.len()), tokens.len());
    let now = k8s_openapi::jiff::Timestamp::now();
    let body = json!({"spec": {"rotateIfIssuedBefore": now.to_string()}}).to_string();
    let (wire, path) = (plane.wire()?, pats(namespace));
    let work = move |token: Token| {
        let (wire, path, body) = (wire.clone(), path.clone(), body.clone());
        async move {
            let pat =
                wire.merge(&path, &token.name, "bench", body.into_bytes()).await.context("requesting a rotation")?;
            Ok(Token { pat, ..token })
        }
    };
    each(tokens, &progress, work).await
}
