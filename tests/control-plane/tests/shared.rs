//! The shared control plane: clients for any identity, and working controllers.

use std::collections::BTreeMap;

use control_plane::{Access, Binary, Identity, require, shared};
use k8s_openapi::{
    api::{
        authentication::v1::{SelfSubjectReview, TokenRequest},
        core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

mod support;
use support::{Outcome, until};

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn code(result: Result<impl Sized, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(other) => panic!("not an answer of the API server: {other}"),
        Ok(_) => panic!("the API server allowed the request"),
    }
}

async fn who_is(client: Client) -> Result<(String, Vec<String>), kube::Error> {
    let review = Api::<SelfSubjectReview>::all(client).create(&PostParams::default(), &Default::default()).await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok((user.username.unwrap_or_default(), user.groups.unwrap_or_default()))
}

#[tokio::test]
async fn api_server_has_the_pinned_version() -> Outcome {
    let version = shared().await?.client()?.apiserver_version().await?;
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        assert_eq!(version.git_version, Binary::KubeApiserver.version());
    }
    Ok(())
}

#[tokio::test]
async fn user_without_a_role_is_forbidden() -> Outcome {
    let plane = shared().await?;
    let client = plane.client_for(&Identity::user("alice", &["dev"]))?;
    let (code, message) = code(Api::<Secret>::namespaced(client, "default").list(&ListParams::default()).await);
    assert_eq!(code, 403);
    assert!(message.contains(r#"User "alice" cannot list resource "secrets""#), "{message}");
    Ok(())
}

#[tokio::test]
async fn identity_has_exactly_the_requested_name_and_groups() -> Outcome {
    let plane = shared().await?;
    let user = Identity::user("bob@example.com", &["one", "two", "three"]);
    let (name, groups) = who_is(plane.client_for(&user)?).await?;
    assert_eq!(name, "bob@example.com");
    assert_eq!(groups, ["one", "two", "three", "system:authenticated"]);

    let (name, groups) = who_is(plane.client_for(&Identity::service_account("apps", "operator"))?).await?;
    assert_eq!(name, "system:serviceaccount:apps:operator");
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:apps", "system:authenticated"]);
    Ok(())
}

#[tokio::test]
async fn request_without_a_certificate_is_unauthorized() -> Outcome {
    let plane = shared().await?;
    let mut config: Config = plane.config_for(&Identity::admin())?;
    config.auth_info = Default::default();
    let client = Client::try_from(config)?;
    assert_eq!(code(Api::<Namespace>::all(client).get("default").await).0, 401);
    Ok(())
}

#[tokio::test]
async fn service_account_has_only_the_rights_of_its_role() -> Outcome {
    let plane = shared().await?;
    let namespace = plane.namespace("roles").await?;
    let admin = plane.client()?;
    let role = Role {
        metadata: named("reader"),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["configmaps".to_owned()]),
            verbs: vec!["list".to_owned()],
            ..PolicyRule::default()
        }]),
    };
    let binding = RoleBinding {
        metadata: named("reader"),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: "reader".to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: "operator".to_owned(),
            namespace: Some(namespace.name().to_owned()),
            ..Subject::default()
        }]),
    };
    Api::namespaced(admin.clone(), namespace.name()).create(&PostParams::default(), &role).await?;
    Api::namespaced(admin, namespace.name()).create(&PostParams::default(), &binding).await?;

    let client = plane.client_for(&Identity::service_account(namespace.name(), "operator"))?;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace.name());
    until("the authorizer knows the role", async || maps.list(&ListParams::default()).await.is_ok()).await;
    let secrets = Api::<Secret>::namespaced(client, namespace.name());
    assert_eq!(code(secrets.list(&ListParams::default()).await).0, 403);
    Ok(())
}

#[tokio::test]
async fn token_of_a_service_account_is_accepted() -> Outcome {
    let plane = shared().await?;
    let namespace = plane.namespace("tokens").await?;
    let accounts = Api::<ServiceAccount>::namespaced(plane.client()?, namespace.name());
    let account = ServiceAccount { metadata: named("operator"), ..ServiceAccount::default() };
    accounts.create(&PostParams::default(), &account).await?;
    let request = accounts.create_token_request("operator", &PostParams::default(), &TokenRequest::default()).await?;

    let mut config = plane.config_for(&Identity::admin())?;
    config.auth_info = Default::default();
    config.auth_info.token = request.status.and_then(|status| Some(status.token?.into()));
    let (name, _) = who_is(Client::try_from(config)?).await?;
    assert_eq!(name, format!("system:serviceaccount:{namespace}:operator"));
    Ok(())
}

#[tokio::test]
async fn kubectl_works_with_a_user_kubeconfig() -> Outcome {
    let plane = shared().await?;
    let kubeconfig = plane.kubeconfig_for(&Identity::user("carol", &["ops"]))?;
    let mut kubectl = plane.command(Binary::Kubectl)?;
    let output = kubectl.env("KUBECONFIG", kubeconfig).args(["auth", "whoami"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("carol") && text.contains("ops"), "{text}");
    Ok(())
}

#[tokio::test]
async fn api_server_metrics_are_readable() -> Outcome {
    let metrics = shared().await?.metrics().await?;
    assert!(metrics.contains("apiserver_request_total{"));
    Ok(())
}

#[tokio::test]
async fn namespace_is_unique_and_deleted_on_drop() -> Outcome {
    let Some(_) = require(Binary::KubeControllerManager) else { return Ok(()) };
    let plane = shared().await?;
    let (one, other) = (plane.namespace("same").await?, plane.namespace("same").await?);
    assert_ne!(one.name(), other.name());
    let name = one.name().to_owned();
    // An object in the namespace, so that the namespace controller has work to do.
    secret(&plane, &name, ObjectMeta { name: Some("left".to_owned()), ..ObjectMeta::default() }).await?;
    drop(one);
    let namespaces = Api::<Namespace>::all(plane.client()?);
    until("the namespace is gone", async || matches!(namespaces.get_opt(&name).await, Ok(None))).await;
    assert!(namespaces.get_opt(other.name()).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn owned_secret_is_garbage_collected() -> Outcome {
    let Some(_) = require(Binary::KubeControllerManager) else { return Ok(()) };
    let plane = shared().await?;
    let namespace = plane.namespace("owners").await?;
    let owners = Api::<ConfigMap>::namespaced(plane.client()?, namespace.name());
    let owner = ConfigMap { metadata: named("owner"), ..ConfigMap::default() };
    let owner = owners.create(&PostParams::default(), &owner).await?;
    let reference: OwnerReference = owner.controller_owner_ref(&()).ok_or("an object from the server has a uid")?;
    let owned = ObjectMeta { owner_references: Some(vec![reference]), ..named("owned") };
    let secrets = secret(&plane, namespace.name(), owned).await?;

    owners.delete(&owner.name_any(), &DeleteParams::background()).await?;
    until("the Secret is gone", async || matches!(secrets.get_opt("owned").await, Ok(None))).await;
    Ok(())
}

async fn secret(
    plane: &Access,
    namespace: &str,
    metadata: ObjectMeta,
) -> Result<Api<Secret>, Box<dyn std::error::Error>> {
    let secrets = Api::<Secret>::namespaced(plane.client()?, namespace);
    let data = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
    let secret = Secret { metadata, string_data: Some(data), ..Secret::default() };
    secrets.create(&PostParams::default(), &secret).await?;
    Ok(secrets)
}
