//! Authentik's flow executor: what it asks for, and what to answer.

use serde_json::{Value, json};

use crate::model::secret::Secret;

/// Who the bootstrap makes.
pub(crate) const ADMIN: &str = "akadmin";

/// Where a login through the API happens.
pub(crate) const EXECUTOR: &str = "/api/v3/flows/executor/default-authentication-flow/?query=";

/// The page on which people log in.
pub(crate) const PAGE: &str = "/if/flow/default-authentication-flow/";

/// Only Authentik's page has this element.
pub(crate) const MARK: &str = "ak-flow-executor";

/// Says who is logged in.
pub(crate) const ME: &str = "/api/v3/core/users/me/";

/// What to do next.
pub(crate) enum Step {
    /// Send this.
    Send(String),
    /// It has let us in.
    In,
    /// It has not.
    Refused(String),
}

/// The step that a challenge asks for. `seen` are the components that were there before.
pub(crate) fn step(challenge: &Value, password: &Secret, seen: &[String]) -> Step {
    let component = challenge["component"].as_str().unwrap_or_default();
    if let Some(why) = errors(challenge) {
        return Step::Refused(why);
    }
    // The same question again means that the answer was not taken.
    if seen.iter().filter(|known| *known == component).count() > 1 {
        return Step::Refused(format!("{component} is asked again and again"));
    }
    match component {
        "ak-stage-identification" => {
            let mut answer = json!({"component": component, "uid_field": ADMIN});
            if challenge["password_fields"] == true {
                answer["password"] = password.reveal().into();
            }
            Step::Send(answer.to_string())
        }
        "ak-stage-password" => Step::Send(json!({"component": component, "password": password.reveal()}).to_string()),
        "ak-stage-user-login" => Step::Send(json!({"component": component, "remember_me": false}).to_string()),
        "xak-flow-redirect" => Step::In,
        "ak-stage-access-denied" => Step::Refused(format!(
            "access denied: {}",
            challenge["error_message"].as_str().unwrap_or("no reason given")
        )),
        "" => Step::Refused("the answer is not a challenge of Authentik's flows".to_owned()),
        other => Step::Refused(format!("the flow wants {other}, which nobody is here to answer")),
    }
}

/// What was wrong with the last answer.
fn errors(challenge: &Value) -> Option<String> {
    let fields = challenge["response_errors"].as_object()?;
    let texts = fields.values().filter_map(Value::as_array).flatten().filter_map(|error| error["string"].as_str());
    let texts: Vec<&str> = texts.collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// Is whoever is logged in the administrator?
///
/// # Errors
/// Who it is instead.
pub(crate) fn admin(body: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(body).map_err(|_| "what it says of the user is not JSON".to_owned())?;
    let name = value["user"]["username"].as_str().unwrap_or("nobody");
    match (name == ADMIN, value["user"]["is_superuser"] == true) {
        (true, true) => Ok(format!("{ADMIN} is logged in and a superuser")),
        (true, false) => Err(format!("{ADMIN} is logged in, but no superuser")),
        (false, _) => Err(format!("logged in is {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(challenge: &Value) -> Result<Value, String> {
        match step(challenge, &Secret::new("pw-1"), &[]) {
            Step::Send(text) => Ok(serde_json::from_str(&text).unwrap()),
            Step::In => Err("in".to_owned()),
            Step::Refused(why) => Err(why),
        }
    }

    #[test]
    fn a_flow_is_followed() {
        let first = sent(&json!({"component": "ak-stage-identification", "password_fields": false})).unwrap();
        assert_eq!(first, json!({"component": "ak-stage-identification", "uid_field": "akadmin"}));
        let both = sent(&json!({"component": "ak-stage-identification", "password_fields": true})).unwrap();
        assert_eq!(both["password"], "pw-1");
        assert_eq!(sent(&json!({"component": "xak-flow-redirect", "to": "/"})).unwrap_err(), "in");
        let wrong = json!({"component": "ak-stage-password", "response_errors": {"password": [{"string": "Failed to authenticate.", "code": "invalid"}]}});
        assert_eq!(sent(&wrong).unwrap_err(), "Failed to authenticate.");
        assert!(sent(&json!({"component": "ak-stage-captcha"})).unwrap_err().contains("captcha"));
        assert!(sent(&json!("<html>")).unwrap_err().contains("not a challenge"));
    }

    #[test]
    fn only_the_administrator_counts() {
        assert!(admin(r#"{"user":{"username":"akadmin","is_superuser":true}}"#).is_ok());
        assert!(admin(r#"{"user":{"username":"akadmin","is_superuser":false}}"#).is_err());
        assert!(admin(r#"{"detail":"Authentication credentials were not provided."}"#).is_err());
    }
}
