//! A control plane that belongs to one test: killed, restarted, with flags and manifests.

use control_plane::{Binary, Component, ControlPlane, Error, Options, require};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, PostParams},
};

mod support;
use support::{Outcome, is_alive, until};

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[tokio::test]
async fn data_survives_a_kill_of_etcd_and_the_api_server() -> Outcome {
    let mut plane = ControlPlane::start(Options::default().without_controller_manager()).await?;
    // The same client all the time: the address of a restarted component does not change.
    let maps = Api::<ConfigMap>::namespaced(plane.client()?, "default");
    let outages = [&[Component::Etcd][..], &[Component::ApiServer], &[Component::Etcd, Component::ApiServer]];
    for (round, outage) in outages.into_iter().enumerate() {
        let name = format!("round-{round}");
        let map = ConfigMap { metadata: named(&name), ..ConfigMap::default() };
        maps.create(&PostParams::default(), &map).await?;
        for component in outage {
            let pid = plane.pid(*component).ok_or("it runs")?;
            plane.kill(*component);
            assert!(!is_alive(pid) && plane.pid(*component).is_none(), "{component}");
        }
        for component in outage {
            plane.restart(*component).await?;
        }
        until("what was written is there", async || maps.get(&name).await.is_ok()).await;
    }
    assert_eq!(maps.list(&Default::default()).await?.items.len(), 3);
    Ok(())
}

#[tokio::test]
async fn wrong_flag_is_reported_with_the_component_log() -> Outcome {
    let options = Options::default().argument(Component::ApiServer, "--no-such-flag");
    let error = ControlPlane::start(options).await.unwrap_err();
    assert!(matches!(error, Error::Ended { component: Component::ApiServer, .. }), "{error}");
    assert!(error.to_string().contains("unknown flag: --no-such-flag"), "{error}");
    Ok(())
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
"#;

#[tokio::test]
async fn owned_objects_of_a_custom_resource_are_garbage_collected() -> Outcome {
    let Some(_) = require(Binary::KubeControllerManager) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("crd.yaml"), CRD)?;
    let plane = ControlPlane::start(Options::default().apply(folder.path())).await?;

    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Thing"));
    let things = Api::<DynamicObject>::namespaced_with(plane.client()?, "default", &kind);
    let thing = things.create(&PostParams::default(), &DynamicObject::new("owner", &kind)).await?;
    let reference = thing.controller_owner_ref(&kind).ok_or("an object from the server has a uid")?;
    let metadata = ObjectMeta { owner_references: Some(vec![reference]), ..named("owned") };
    let secrets = Api::<Secret>::namespaced(plane.client()?, "default");
    secrets.create(&PostParams::default(), &Secret { metadata, ..Secret::default() }).await?;

    let begin = std::time::Instant::now();
    things.delete(&thing.name_any(), &DeleteParams::background()).await?;
    until("the Secret is gone", async || matches!(secrets.get_opt("owned").await, Ok(None))).await;
    assert!(
        begin.elapsed().as_secs() < 20,
        "the garbage collector found the kind only at its next discovery, after 30 seconds"
    );
    Ok(())
}

#[tokio::test]
async fn wrong_manifest_is_named_in_the_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let manifest = folder.path().join("wrong.yaml");
    std::fs::write(&manifest, "kind: Nothing\napiVersion: v1\nmetadata: {name: a}\n")?;
    let error = ControlPlane::start(Options::default().apply(&manifest)).await.unwrap_err();
    assert!(error.to_string().contains("wrong.yaml") && error.to_string().contains("Nothing"), "{error}");
    Ok(())
}
