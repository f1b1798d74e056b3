//! The layout of a Secret: read from the spec, with defaults filled in and every mistake found.
//!
//! Admission refuses most of these mistakes. An object may be older than the rules, so they are checked again here, with the same messages.

use std::collections::BTreeMap;

use super::{
    placeholder::{Subject, TemplateFacts, TemplateVariable},
    preset::PresetFormat,
    template::Template,
};
use crate::api::{
    InvalidField, MANAGED_BY_LABEL, PersonalAccessTokenSpec, Preset, RESERVED_PREFIX, SecretSpec, SecretTemplate, Time,
};

const DEFAULT_KEY: &str = "token";

/// The type of a Secret that requires no keys (<https://kubernetes.io/docs/concepts/configuration/secret/#opaque-secrets>).
pub const OPAQUE: &str = "Opaque";
pub(super) const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
pub(super) const DOCKER_CONFIG_JSON: &str = "kubernetes.io/dockerconfigjson";

/// The keys of [`BASIC_AUTH`], which requires one of them.
pub(super) const BASIC_AUTH_KEYS: [&str; 2] = ["username", "password"];
/// The key that [`DOCKER_CONFIG_JSON`] requires.
pub(super) const DOCKER_CONFIG_JSON_KEY: &str = ".dockerconfigjson";

/// The layout of a token's Secret, defaults filled in. It renders every token without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The Secret's name.
    pub name: String,
    /// The Secret's type: the given one, the one that the preset needs, or `Opaque`.
    pub type_: String,
    /// The labels from the spec, without the operator's own.
    pub labels: BTreeMap<String, String>,
    /// The annotations from the spec, without the operator's own.
    pub annotations: BTreeMap<String, String>,
    /// The key that holds the token alone.
    pub key: String,
    /// The key that holds the previous token during its grace period.
    pub previous_key: Option<String>,
    pub(super) body: Body,
}

/// The other content of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    Preset(PresetFormat),
    Templates { templates: BTreeMap<String, Template>, subject: Subject },
}

impl Body {
    pub(super) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Preset(form) => form.keys().to_vec(),
            Self::Templates { templates, .. } => templates.keys().map(String::as_str).collect(),
        }
    }
}

impl Layout {
    /// Reads the layout of the object `namespace`/`name`. `owner_text` is its owner as one string: `<name>`, or
    /// `va:<namespace>/<name>`.
    ///
    /// # Errors
    /// The first invalid field, and what to write instead. Every cause of an error in [`Layout::render`] is found here.
    pub fn read(
        namespace: &str,
        name: &str,
        owner_text: &str,
        spec: &PersonalAccessTokenSpec,
    ) -> Result<Self, InvalidField> {
        let default = SecretSpec::default();
        let secret = spec.secret.as_deref().unwrap_or(&default);
        check_reserved("labels", &secret.labels)?;
        check_reserved("annotations", &secret.annotations)?;
        let preset = secret.template.as_ref().and_then(|template| template.preset);
        let body = match &secret.template {
            Some(template) => read_body(template, owner_text, || Subject::read(namespace, name, owner_text, spec))?,
            None => Body::Nothing,
        };
        let layout = Self {
            name: secret.name.as_deref().unwrap_or(name).to_owned(),
            type_: read_type(secret.type_.as_deref(), preset)?,
            labels: secret.labels.clone(),
            annotations: secret.annotations.clone(),
            key: secret.key.as_deref().unwrap_or(DEFAULT_KEY).to_owned(),
            previous_key: secret.previous_key.clone(),
            body,
        };
        layout.check_keys()?;
        layout.check_previous()?;
        layout.check_type()?;
        layout.dry_run()?;
        Ok(layout)
    }

    /// Returns all keys that the Secret can have.
    pub fn keys(&self) -> Vec<&str> {
        let bare = [Some(self.key.as_str()), self.previous_key.as_deref()];
        bare.into_iter().flatten().chain(self.body.keys()).collect()
    }

    /// Whether the Secret holds the previous token during its grace period.
    pub fn wants_previous(&self) -> bool {
        self.previous_key.is_some()
    }

    /// Checks that no two values have the same key.
    fn check_keys(&self) -> Result<(), InvalidField> {
        let previous = self.previous_key.as_deref();
        if previous == Some(&self.key) {
            let message = "previousKey must differ from key: the Secret holds both tokens during the grace period";
            return Err(InvalidField::new("spec.secret.previousKey", message));
        }
        for (field, bare) in [("key", Some(self.key.as_str())), ("previousKey", previous)] {
            let Some(bare) = bare.filter(|bare| self.body.keys().contains(bare)) else { continue };
            match &self.body {
                // BasicAuth also writes the bare token under `password`.
                Body::Preset(_) if field == "key" && bare == "password" => {}
                Body::Preset(_) => {
                    let message = "the preset writes this key: choose another key";
                    return Err(InvalidField::new(format!("spec.secret.{field}"), message));
                }
                Body::Nothing | Body::Templates { .. } => {
                    let message = "template.data may not define the keys that hold the bare tokens (key, default 'token', and previousKey): choose other keys";
                    return Err(InvalidField::new("spec.secret.template", message));
                }
            }
        }
        Ok(())
    }

    /// Checks that templates use the previous token only if it has a key.
    fn check_previous(&self) -> Result<(), InvalidField> {
        let Body::Templates { templates, .. } = &self.body else { return Ok(()) };
        let mut variables = templates.values().flat_map(Template::variables);
        if !self.wants_previous() && variables.any(TemplateVariable::is_previous) {
            let message = "a template that uses previousToken or previousId needs previousKey: without it, the previous token is not kept";
            return Err(InvalidField::new("spec.secret.template", message));
        }
        Ok(())
    }

    /// Checks that the Secret has the keys that its type requires. The API server would refuse it otherwise.
    fn check_type(&self) -> Result<(), InvalidField> {
        let keys = self.body.keys();
        let complete = match self.type_.as_str() {
            BASIC_AUTH => BASIC_AUTH_KEYS.iter().any(|key| keys.contains(key) || self.key == *key),
            DOCKER_CONFIG_JSON => keys.contains(&DOCKER_CONFIG_JSON_KEY),
            _ => true,
        };
        if complete {
            return Ok(());
        }
        let message = "this type requires certain keys: set template.preset to BasicAuth or DockerConfigJson, or define username and password or .dockerconfigjson in template.data";
        Err(InvalidField::new("spec.secret.type", message))
    }

    /// Renders with and without the optional values, each at its longest, so that no real token causes an error. The samples are neither
    /// numbers nor hexadecimal digits: JSON that is valid with them is valid with every token, even after `\u`.
    fn dry_run(&self) -> Result<(), InvalidField> {
        const TOKEN: &str = "zzzzzzzzzzzzzzz_Zz0000000000xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx000000";
        const ID: &str = "Zz0000000000";
        if self.body == Body::Nothing {
            return Ok(());
        }
        let time = Time::from_micros(1_000_000_000_123_456);
        for previous in [Some(TOKEN), None] {
            for expires_at in [Some(time), None] {
                let facts = TemplateFacts {
                    id: ID,
                    previous_id: previous.map(|_| ID),
                    issued_at: time,
                    expires_at,
                    remote_id: Some(ID),
                };
                self.render(TOKEN, previous, &facts)?;
            }
        }
        Ok(())
    }
}

fn read_body(
    template: &SecretTemplate,
    owner_text: &str,
    subject: impl FnOnce() -> Subject,
) -> Result<Body, InvalidField> {
    match (template.preset, &template.data) {
        (Some(preset), None) => PresetFormat::read(preset, template, owner_text).map(Body::Preset),
        (None, Some(_)) if template.host.is_some() || template.username.is_some() => {
            let message = "template.host and template.username are only for presets: with template.data, write them in the template";
            Err(InvalidField::new("spec.secret.template", message))
        }
        (None, Some(data)) => {
            let read = |(key, text): (&String, &String)| match Template::parse(text) {
                Ok(template) => Ok((key.clone(), template)),
                Err(error) => Err(InvalidField::new(data_field(key), error.to_string())),
            };
            Ok(Body::Templates { templates: data.iter().map(read).collect::<Result<_, _>>()?, subject: subject() })
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(InvalidField::new("spec.secret.template", "set exactly one of template.preset and template.data"))
        }
    }
}

/// The path of one template in the spec.
pub(super) fn data_field(key: &str) -> String {
    format!("spec.secret.template.data[{key}]")
}

fn read_type(type_: Option<&str>, preset: Option<Preset>) -> Result<String, InvalidField> {
    let error = |message: &str| Err(InvalidField::new("spec.secret.type", message));
    let default = match preset {
        Some(Preset::BasicAuth) => BASIC_AUTH,
        Some(Preset::DockerConfigJson) => DOCKER_CONFIG_JSON,
        Some(Preset::Netrc | Preset::Npmrc | Preset::GitCredentials) | None => OPAQUE,
    };
    let Some(type_) = type_ else { return Ok(default.to_owned()) };
    let well_known = [OPAQUE, BASIC_AUTH, DOCKER_CONFIG_JSON].contains(&type_);
    if !well_known && !is_own_type(type_) {
        return error(
            "type must be Opaque, kubernetes.io/basic-auth, kubernetes.io/dockerconfigjson or a name in a domain of your own, such as example.com/token",
        );
    }
    let fits = type_ == default || preset.is_none() || default == OPAQUE && !well_known;
    if !fits {
        return error("type does not match the preset: remove type to use the type of the preset");
    }
    Ok(type_.to_owned())
}

/// Whether a type is in another domain, which has no meaning to Kubernetes or this operator.
fn is_own_type(type_: &str) -> bool {
    type_.split_once('/').is_some_and(|(domain, name)| domain.contains('.') && !name.is_empty())
        && !["kubernetes.io/", "k8s.io/", RESERVED_PREFIX].iter().any(|prefix| is_in(type_, prefix))
}

fn check_reserved(what: &str, map: &BTreeMap<String, String>) -> Result<(), InvalidField> {
    if map.keys().any(|key| is_in(key, RESERVED_PREFIX) || key == MANAGED_BY_LABEL) {
        let message = format!(
            "{what} under pat-operator.io/ and app.kubernetes.io/managed-by are reserved for the operator: choose other keys"
        );
        return Err(InvalidField::new(format!("spec.secret.{what}"), message));
    }
    Ok(())
}

/// Whether a qualified name is in the domain `prefix`, which ends in a slash, or in a subdomain of it.
fn is_in(name: &str, prefix: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let prefix = prefix.trim_end_matches('/');
    domain == prefix || domain.strip_suffix(prefix).is_some_and(|above| above.ends_with('.'))
}
