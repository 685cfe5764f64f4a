//! Sticky sessions, under the names of the Gateway API (GEP-1619).

use serde::{Deserialize, Serialize};

use super::Duration;

/// Requests of a session go to one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionPersistence {
    /// Name of the cookie or header. Default `outrigger-session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// `type`. Default Cookie.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub session_type: Option<SessionType>,
    /// How long a session lasts at most. Unset: as long as the client keeps the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// Only with the type Cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

impl SessionPersistence {
    /// The value in effect.
    pub fn session_name(&self) -> &str {
        self.session_name.as_deref().unwrap_or("outrigger-session")
    }

    /// The value in effect.
    pub fn session_type(&self) -> SessionType {
        self.session_type.unwrap_or_default()
    }

    /// Whether the client keeps the cookie when it is closed.
    pub fn is_permanent(&self) -> bool {
        let lifetime = self.cookie_config.and_then(|config| config.lifetime_type);
        lifetime == Some(LifetimeType::Permanent)
    }
}

/// What carries the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionType {
    /// A cookie.
    #[default]
    Cookie,
    /// A header, which the client sends back itself.
    Header,
}

/// Settings of the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieConfig {
    /// Default Session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<LifetimeType>,
}

/// How long a client keeps the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifetimeType {
    /// Until it is closed.
    #[default]
    Session,
    /// For the absolute timeout.
    Permanent,
}
