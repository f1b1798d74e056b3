//! Reads kubeconfig files as kubectl does: which files, what is valid in them, and how they merge.
//!
//! The rules are those of client-go's `tools/clientcmd` (loader.go, api/v1). Fields are read one by one instead of by serde, because
//! an error of serde quotes the value that it does not expect, which may be a token.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

/// Go's `base64.StdEncoding`: with padding, and it ignores the bits after the last byte.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The name of the extension of a cluster that a credential plugin gets.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// Why a kubeconfig cannot be used. It names fields and files, and quotes no values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KubeconfigError(String);

impl KubeconfigError {
    /// An error with this explanation.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

type Result<T> = std::result::Result<T, KubeconfigError>;

/// The merged kubeconfig. An empty text means that a field is not set, as in client-go.
#[derive(Default)]
pub struct Kubeconfig {
    /// The name of the current context.
    pub current_context: String,
    /// The clusters by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// The users by name.
    pub users: BTreeMap<String, User>,
    /// The contexts by name.
    pub contexts: BTreeMap<String, Context>,
}

/// How to reach an API server.
#[derive(Clone, Default)]
pub struct Cluster {
    /// The address, with or without a scheme.
    pub server: String,
    /// The name in the server's certificate, if it is not that of the address.
    pub tls_server_name: String,
    /// Whether any certificate is accepted.
    pub insecure_skip_tls_verify: bool,
    /// The file of the certificate authorities.
    pub certificate_authority: String,
    /// The certificate authorities in PEM.
    pub certificate_authority_data: Vec<u8>,
    /// The proxy's URL.
    pub proxy_url: String,
    /// Whether responses are not compressed. Only credential plugins get it.
    pub disable_compression: bool,
    /// The configuration of credential plugins for this cluster.
    pub exec_config: Option<Value>,
}

/// How to authenticate.
#[derive(Clone, Default)]
pub struct User {
    /// The file of the client certificate.
    pub client_certificate: String,
    /// The client certificate in PEM.
    pub client_certificate_data: Vec<u8>,
    /// The file of the client certificate's key.
    pub client_key: String,
    /// The key of the client certificate in PEM.
    pub client_key_data: Vec<u8>,
    /// The bearer token.
    pub token: String,
    /// The file of the bearer token.
    pub token_file: String,
    /// The user to act as.
    pub impersonate: String,
    /// The UID to act as.
    pub impersonate_uid: String,
    /// The groups to act as.
    pub impersonate_groups: Vec<String>,
    /// The extra fields to act as.
    pub impersonate_extra: BTreeMap<String, Vec<String>>,
    /// The user name for basic authentication.
    pub username: String,
    /// The password for basic authentication.
    pub password: String,
    /// The legacy provider of credentials.
    pub auth_provider: Option<AuthProvider>,
    /// The credential plugin.
    pub exec: Option<Exec>,
}

/// A legacy provider of credentials.
#[derive(Clone, Default)]
pub struct AuthProvider {
    /// Its name, such as `oidc`.
    pub name: String,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
}

/// A credential plugin.
#[derive(Clone, Default)]
pub struct Exec {
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its additional environment variables.
    pub env: Vec<(String, String)>,
    /// The version of `ExecCredential`.
    pub api_version: String,
    /// What to do if the program is not installed.
    pub install_hint: String,
    /// Whether the plugin gets the cluster.
    pub provide_cluster_info: bool,
    /// `Never`, `IfAvailable` or `Always`.
    pub interactive_mode: String,
}

/// A cluster, a user and a namespace.
#[derive(Clone, Default)]
pub struct Context {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of the user.
    pub user: String,
    /// The namespace.
    pub namespace: String,
}

/// The kubeconfig files of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// The file of `--kubeconfig`, which must exist.
    Flag(PathBuf),
    /// The files of the variable `KUBECONFIG`. The first one to set a value wins, and missing files are ignored.
    Variable(Vec<PathBuf>),
    /// `~/.kube/config`, which may be missing.
    Home(Option<PathBuf>),
}

impl Files {
    /// Finds the files by `--kubeconfig`, then `KUBECONFIG`, then the home folder. Empty values count as not set.
    pub fn find(flag: Option<&Path>, variable: Option<&OsStr>, home: Option<&Path>) -> Self {
        let set = |path: &&Path| !path.as_os_str().is_empty();
        match (flag.filter(set), variable.filter(|list| !list.is_empty())) {
            (Some(flag), _) => Self::Flag(flag.to_owned()),
            (None, Some(list)) => Self::Variable(env::split_paths(list).filter(|path| set(&path.as_path())).collect()),
            (None, None) => Self::Home(home.filter(set).map(|home| home.join(".kube").join("config"))),
        }
    }

    fn paths(&self) -> &[PathBuf] {
        match self {
            Self::Flag(path) => std::slice::from_ref(path),
            Self::Variable(paths) => paths,
            Self::Home(path) => path.as_slice(),
        }
    }

    /// Reads and merges the files. Also returns the missing ones.
    ///
    /// # Errors
    /// A file cannot be read, or is no kubeconfig.
    pub fn read(&self) -> Result<(Kubeconfig, Vec<PathBuf>)> {
        let (mut merged, mut missing) = (Kubeconfig::default(), Vec::new());
        for path in self.paths() {
            match fs::read(path) {
                Ok(bytes) => {
                    let mut one = Kubeconfig::parse(&bytes)
                        .map_err(|error| KubeconfigError(format!("{}: {error}", path.display())))?;
                    one.resolve_paths(path);
                    merged.merge(one);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !matches!(self, Self::Flag(_)) => {
                    missing.push(path.clone());
                }
                Err(error) => return Err(KubeconfigError(format!("cannot read {}: {error}", path.display()))),
            }
        }
        Ok((merged, missing))
    }
}

impl Kubeconfig {
    /// Reads the text of one file.
    ///
    /// # Errors
    /// It is no kubeconfig.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let document = parse_yaml(&decode(bytes)?)?;
        let root = Node::of(String::new(), Some(&document))?;
        for (key, only) in [("apiVersion", "v1"), ("kind", "Config")] {
            let found = root.text(key)?;
            if !found.is_empty() && found != only {
                return Err(KubeconfigError(format!("{key}: must be {only}")));
            }
        }
        Ok(Self {
            current_context: root.text("current-context")?,
            clusters: named(&root, "clusters", "cluster", cluster)?,
            users: named(&root, "users", "user", user)?,
            contexts: named(&root, "contexts", "context", context)?,
        })
    }

    /// Makes the paths in the file absolute. They are relative to the folder of the file.
    fn resolve_paths(&mut self, file: &Path) {
        let folder = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let resolve = |path: &mut String| {
            if !path.is_empty() {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        };
        for cluster in self.clusters.values_mut() {
            resolve(&mut cluster.certificate_authority);
        }
        for user in self.users.values_mut() {
            resolve(&mut user.client_certificate);
            resolve(&mut user.client_key);
            resolve(&mut user.token_file);
            // A name without a separator is looked up in PATH.
            if let Some(exec) = user.exec.as_mut().filter(|exec| exec.command.contains(std::path::MAIN_SEPARATOR)) {
                resolve(&mut exec.command);
            }
        }
    }

    /// Adds what this kubeconfig does not set yet. Entries are taken as a whole.
    fn merge(&mut self, next: Self) {
        if self.current_context.is_empty() {
            self.current_context = next.current_context;
        }
        for (name, cluster) in next.clusters {
            self.clusters.entry(name).or_insert(cluster);
        }
        for (name, user) in next.users {
            self.users.entry(name).or_insert(user);
        }
        for (name, context) in next.contexts {
            self.contexts.entry(name).or_insert(context);
        }
    }
}

/// Returns the data; if it is empty, that of the file.
///
/// # Errors
/// The file cannot be read.
pub fn read_or(data: &[u8], file: &str) -> std::result::Result<Vec<u8>, String> {
    if data.is_empty() {
        fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))
    } else {
        Ok(data.to_vec())
    }
}

/// Decodes the text of a file, which may begin with a byte order mark.
fn decode(bytes: &[u8]) -> Result<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<_> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok(),
    };
    text.ok_or_else(|| KubeconfigError("not YAML: not text in UTF-8".into()))
}

/// Parses the first document of the text, as kubectl does. Of a key that is set twice, the last value counts.
fn parse_yaml(text: &str) -> Result<Value> {
    let options = serde_yaml::options! { duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::LastWins };
    let mut bytes = text.as_bytes();
    match serde_yaml::read_with_options(&mut bytes, options).next() {
        None => Ok(Value::Null),
        Some(Ok(document)) => Ok(document),
        // The message may quote the file, which may contain a token.
        Some(Err(error)) => {
            let place = error.location().map(|at| format!(" in line {}, column {}", at.line(), at.column()));
            Err(KubeconfigError(format!("not YAML: invalid syntax{}", place.unwrap_or_default())))
        }
    }
}

/// Reads a list of named entries.
fn named<T>(root: &Node<'_>, list: &str, entry: &str, read: fn(&Node<'_>) -> Result<T>) -> Result<BTreeMap<String, T>> {
    let mut all = BTreeMap::new();
    for node in root.nodes(list)? {
        let name = node.text("name")?;
        let value = read(&node.node(entry)?)?;
        if all.insert(name, value).is_some() {
            return Err(KubeconfigError(format!("{}.name: must be unique in {list}", node.path)));
        }
    }
    Ok(all)
}

fn cluster(node: &Node<'_>) -> Result<Cluster> {
    let extensions = node.nodes("extensions")?;
    let mut exec_config = None;
    for extension in extensions {
        if extension.text("name")? == EXEC_EXTENSION {
            exec_config = extension.get("extension").cloned();
        }
    }
    Ok(Cluster {
        server: node.text("server")?,
        tls_server_name: node.text("tls-server-name")?,
        insecure_skip_tls_verify: node.flag("insecure-skip-tls-verify")?,
        certificate_authority: node.text("certificate-authority")?,
        certificate_authority_data: node.bytes("certificate-authority-data")?,
        proxy_url: node.text("proxy-url")?,
        disable_compression: node.flag("disable-compression")?,
        exec_config,
    })
}

fn user(node: &Node<'_>) -> Result<User> {
    let provider = node.node("auth-provider")?;
    let auth_provider = match provider.fields {
        Some(_) => Some(AuthProvider { name: provider.text("name")?, config: provider.node("config")?.all(text)? }),
        None => None,
    };
    let exec = node.node("exec")?;
    Ok(User {
        client_certificate: node.text("client-certificate")?,
        client_certificate_data: node.bytes("client-certificate-data")?,
        client_key: node.text("client-key")?,
        client_key_data: node.bytes("client-key-data")?,
        token: node.text("token")?,
        token_file: node.text("tokenFile")?,
        impersonate: node.text("as")?,
        impersonate_uid: node.text("as-uid")?,
        impersonate_groups: node.texts("as-groups")?,
        impersonate_extra: node.node("as-user-extra")?.all(texts)?,
        username: node.text("username")?,
        password: node.text("password")?,
        auth_provider,
        exec: exec.fields.is_some().then(|| read_exec(&exec)).transpose()?,
    })
}

fn read_exec(node: &Node<'_>) -> Result<Exec> {
    let api_version = node.text("apiVersion")?;
    let mut interactive_mode = node.text("interactiveMode")?;
    if interactive_mode.is_empty() && api_version == "client.authentication.k8s.io/v1beta1" {
        interactive_mode = "IfAvailable".into();
    }
    let env = node.nodes("env")?;
    Ok(Exec {
        command: node.text("command")?,
        args: node.texts("args")?,
        env: env.iter().map(|one| Ok((one.text("name")?, one.text("value")?))).collect::<Result<_>>()?,
        api_version,
        install_hint: node.text("installHint")?,
        provide_cluster_info: node.flag("provideClusterInfo")?,
        interactive_mode,
    })
}

fn context(node: &Node<'_>) -> Result<Context> {
    Ok(Context { cluster: node.text("cluster")?, user: node.text("user")?, namespace: node.text("namespace")? })
}

/// A map in the file and its path. Null and absent values count as empty, as in Go.
struct Node<'v> {
    path: String,
    fields: Option<&'v Map<String, Value>>,
}

impl<'v> Node<'v> {
    fn of(path: String, value: Option<&'v Value>) -> Result<Self> {
        match value {
            None | Some(Value::Null) => Ok(Self { path, fields: None }),
            Some(Value::Object(fields)) => Ok(Self { path, fields: Some(fields) }),
            Some(_) => Err(must_be(&path, "a map")),
        }
    }

    fn get(&self, key: &str) -> Option<&'v Value> {
        self.fields?.get(key).filter(|value| !value.is_null())
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn node(&self, key: &str) -> Result<Self> {
        Self::of(self.at(key), self.get(key))
    }

    fn nodes(&self, key: &str) -> Result<Vec<Self>> {
        let items = list(&self.at(key), self.get(key))?;
        let numbered = items.iter().enumerate();
        numbered.map(|(index, item)| Self::of(format!("{}[{index}]", self.at(key)), Some(item))).collect()
    }

    fn text(&self, key: &str) -> Result<String> {
        text(&self.at(key), self.get(key))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        texts(&self.at(key), self.get(key))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(must_be(&self.at(key), "true or false")),
        }
    }

    /// Bytes in base64, which may be folded into lines.
    fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        let text = self.text(key)?.replace(['\r', '\n'], "");
        BASE64.decode(text).map_err(|_| must_be(&self.at(key), "base64"))
    }

    /// All fields, with their values read by `read`.
    fn all<T>(&self, read: fn(&str, Option<&Value>) -> Result<T>) -> Result<BTreeMap<String, T>> {
        let fields = self.fields.into_iter().flatten();
        fields.map(|(key, value)| Ok((key.clone(), read(&self.at(key), Some(value))?))).collect()
    }
}

fn must_be(path: &str, kind: &str) -> KubeconfigError {
    if path.is_empty() {
        return KubeconfigError(format!("not YAML: the file must be {kind}"));
    }
    KubeconfigError(format!("{path}: must be {kind}"))
}

fn text(path: &str, value: Option<&Value>) -> Result<String> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(must_be(path, "text; put quotes around numbers and words such as true")),
    }
}

fn texts(path: &str, value: Option<&Value>) -> Result<Vec<String>> {
    list(path, value)?.iter().map(|item| text(path, Some(item))).collect()
}

fn list<'v>(path: &str, value: Option<&'v Value>) -> Result<&'v [Value]> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(must_be(path, "a list")),
    }
}
