//! The `Authorization` header of each request: fixed, or from a source that is asked again before the credentials expire.

use std::{fmt, path::PathBuf, pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Request,
    header::{AUTHORIZATION, HeaderValue},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tower::{BoxError, filter::AsyncPredicate};

use super::exec::{ExecCredential, ExecPlugin};

/// How long a token file is not read again. client-go caches it for a minute, less ten seconds.
const FILE_PERIOD: SignedDuration = SignedDuration::from_secs(50);

/// The shortest time between two calls of a credential plugin, so that one whose credentials are always expired is not called for each
/// request.
const EXEC_PERIOD: SignedDuration = SignedDuration::from_mins(1);

/// Where credentials come from.
pub enum Authorization {
    /// There are none.
    None,
    /// A header.
    Fixed(HeaderValue),
    /// A file with a bearer token.
    File(TokenFile),
    /// A credential plugin.
    Exec(ExecPlugin),
}

/// A file with a bearer token, and the last token that was read.
pub struct TokenFile {
    path: PathBuf,
    header: HeaderValue,
    renew_at: Timestamp,
}

impl TokenFile {
    /// Reads the file. Without a readable one, the other token counts, if there is one.
    ///
    /// # Errors
    /// There is no token.
    pub fn open(path: PathBuf, other: Option<HeaderValue>, now: Timestamp) -> Result<Self, String> {
        let header = match (read_token(&path), other) {
            (Ok(header), _) | (Err(_), Some(header)) => header,
            (Err(reason), None) => return Err(reason),
        };
        Ok(Self { path, header, renew_at: now + FILE_PERIOD })
    }

    /// The header. If the file cannot be read again, the last token counts.
    fn header(&mut self, now: Timestamp) -> HeaderValue {
        if now >= self.renew_at {
            if let Ok(header) = read_token(&self.path) {
                self.header = header;
            }
            self.renew_at = now + FILE_PERIOD;
        }
        self.header.clone()
    }
}

fn read_token(path: &std::path::Path) -> Result<HeaderValue, String> {
    let at = |reason: &dyn fmt::Display| format!("tokenFile {}: {reason}", path.display());
    let token = std::fs::read_to_string(path).map_err(|error| at(&error))?;
    let header = bearer_header(&token).map_err(|reason| at(&reason))?;
    header.ok_or_else(|| at(&"it has no token"))
}

/// A credential plugin, and the last token that it printed.
struct ExecToken {
    plugin: Arc<ExecPlugin>,
    header: Option<HeaderValue>,
    renew_at: Option<Timestamp>,
}

impl ExecToken {
    fn new(plugin: Arc<ExecPlugin>, credential: &ExecCredential, now: Timestamp) -> Result<Self, CredentialError> {
        let header = bearer_header(&credential.token).map_err(|reason| {
            CredentialError(format!("the exec plugin printed a token that cannot be used: {reason}"))
        })?;
        let renew_at = credential.expires.map(|time| time.max(now + EXEC_PERIOD));
        Ok(Self { plugin, header, renew_at })
    }

    async fn header(&mut self, now: Timestamp) -> Result<Option<HeaderValue>, CredentialError> {
        if self.renew_at.is_some_and(|time| now >= time) {
            let credential = run(&self.plugin).await?;
            *self = Self::new(self.plugin.clone(), &credential, now)?;
        }
        Ok(self.header.clone())
    }
}

async fn run(plugin: &Arc<ExecPlugin>) -> Result<ExecCredential, CredentialError> {
    let plugin = plugin.clone();
    let ended = tokio::task::spawn_blocking(move || plugin.run()).await;
    ended.map_err(|_| "the exec plugin was not run to its end".to_owned()).flatten().map_err(CredentialError)
}

/// Why there are no credentials. It quotes none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);

impl CredentialError {
    /// An error with this explanation.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Adds the `Authorization` header to requests.
#[derive(Clone)]
pub struct Credentials(Arc<Source>);

enum Source {
    Fixed(Option<HeaderValue>),
    File(Mutex<TokenFile>),
    Exec(Mutex<ExecToken>),
}

impl Credentials {
    /// No credentials.
    pub fn none() -> Self {
        Self(Arc::new(Source::Fixed(None)))
    }

    /// Credentials from a source. A credential plugin is called now; its client certificate is returned, which is not renewed later.
    ///
    /// # Errors
    /// The plugin fails.
    pub async fn obtain(from: Authorization) -> Result<(Self, Option<(String, String)>), CredentialError> {
        let mut certificate = None;
        let source = match from {
            Authorization::None => Source::Fixed(None),
            Authorization::Fixed(header) => Source::Fixed(Some(header)),
            Authorization::File(file) => Source::File(Mutex::new(file)),
            Authorization::Exec(plugin) => {
                let plugin = Arc::new(plugin);
                let credential = run(&plugin).await?;
                let token = ExecToken::new(plugin, &credential, Timestamp::now())?;
                certificate = credential.certificate;
                if token.header.is_some() { Source::Exec(Mutex::new(token)) } else { Source::Fixed(None) }
            }
        };
        Ok((Self(Arc::new(source)), certificate))
    }

    async fn header(&self, now: Timestamp) -> Result<Option<HeaderValue>, CredentialError> {
        match &*self.0 {
            Source::Fixed(header) => Ok(header.clone()),
            Source::File(file) => Ok(Some(file.lock().await.header(now))),
            Source::Exec(token) => token.lock().await.header(now).await,
        }
    }
}

impl<B: Send + 'static> AsyncPredicate<Request<B>> for Credentials {
    type Future = Pin<Box<dyn Future<Output = Result<Request<B>, BoxError>> + Send>>;
    type Request = Request<B>;

    fn check(&mut self, mut request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if let Some(header) = this.header(Timestamp::now()).await? {
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            Ok(request)
        })
    }
}

/// The header of a bearer token, without the white space around it; `None` if there is no token.
///
/// # Errors
/// A header cannot have the characters of the token.
pub fn bearer_header(token: &str) -> Result<Option<HeaderValue>, &'static str> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    sensitive(format!("Bearer {token}")).map(Some).ok_or("the token has line breaks or control characters")
}

/// The header of a user and a password.
///
/// # Errors
/// They are too long for a header.
pub fn basic_header(user: &str, password: &str) -> Result<HeaderValue, &'static str> {
    let basic = STANDARD.encode(format!("{user}:{password}"));
    sensitive(format!("Basic {basic}")).ok_or("the user or the password is too long")
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use serde_json::json;

    use super::*;
    use crate::service::client::kubeconfig::{Cluster, Exec};

    const START: &str = "2030-01-01T00:00:00Z";

    fn text(header: &HeaderValue) -> &str {
        assert!(header.is_sensitive());
        header.to_str().expect("text")
    }

    #[test]
    fn a_token_file_is_trimmed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let start: Timestamp = START.parse().unwrap();
        for (content, reason) in [(&b"\n \n"[..], "it has no token"), (b"a\nb", "line breaks"), (b"\xff", "UTF-8")] {
            fs::write(&path, content).unwrap();
            let error = TokenFile::open(path.clone(), None, start).err().expect("an error");
            assert!(error.contains(reason) && error.contains("tokenFile"), "{error}");
        }
        fs::write(&path, "\n one \r\n").unwrap();
        let mut file = TokenFile::open(path.clone(), None, start).ok().unwrap();
        fs::write(&path, "two\n").unwrap();
        assert_eq!(text(&file.header(start + SignedDuration::from_secs(49))), "Bearer one");
        assert_eq!(text(&file.header(start + SignedDuration::from_secs(50))), "Bearer two");
        fs::remove_file(&path).unwrap();
        assert_eq!(text(&file.header(start + SignedDuration::from_secs(100))), "Bearer two");
        let other = bearer_header("inline").unwrap();
        let mut file = TokenFile::open(path, other, start).ok().unwrap();
        assert_eq!(text(&file.header(start)), "Bearer inline");
    }

    #[tokio::test]
    async fn a_plugin_is_called_once_until_its_token_expires() {
        let folder = tempfile::tempdir().unwrap();
        let calls = folder.path().join("calls");
        let plugin = |expires: &str| {
            let credential = json!({
                "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
                "status": {"token": "t", "expirationTimestamp": expires},
            });
            let exec = Exec {
                command: "sh".into(),
                args: vec!["-c".into(), format!("printf x >> {}; echo '{credential}'", calls.display())],
                api_version: "client.authentication.k8s.io/v1".into(),
                interactive_mode: "Never".into(),
                ..Exec::default()
            };
            Arc::new(ExecPlugin::new(exec, &Cluster::default()).ok().unwrap())
        };
        let count = || {
            let mut text = String::new();
            fs::File::open(&calls).and_then(|mut file| file.read_to_string(&mut text)).map_or(0, |_| text.len())
        };
        let start: Timestamp = START.parse().unwrap();
        // One that expires after an hour, and one that is always expired.
        for (expires, period) in
            [("2030-01-01T01:00:00Z", SignedDuration::from_hours(1)), ("2020-01-01T00:00:00Z", EXEC_PERIOD)]
        {
            let _ = fs::remove_file(&calls);
            let plugin = plugin(expires);
            let credential = run(&plugin).await.ok().unwrap();
            let mut token = ExecToken::new(plugin, &credential, start).ok().unwrap();
            for _ in 0..3 {
                let header = token.header(start + period - SignedDuration::from_secs(1)).await.ok().flatten();
                assert_eq!(text(&header.expect("a header")), "Bearer t");
            }
            assert_eq!(count(), 1, "{expires}");
            token.header(start + period).await.ok().unwrap();
            assert_eq!(count(), 2, "{expires}");
        }
    }
}
