//! Why AWS or its CLI refuses, in one line, and what to do.

use std::process::ExitStatus;

use super::id::Id;
use crate::screen::{cut, printable};

const LONGEST: usize = 400;

/// What is done about an error code of AWS.
const CODES: [(&[&str], &str); 11] = [
    (&["NoSuchBucket"], "name a bucket in the region of the deployment group; `aws s3 ls` lists yours"),
    (
        &["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"],
        "name a bucket in the region of the deployment group",
    ),
    (
        &["AccessDenied", "AccessDeniedException", "AllAccessDisabled"],
        "`aws sts get-caller-identity` says who you are there; whoever that is needs the right to do this",
    ),
    (&["ExpiredToken", "ExpiredTokenException", "RequestExpired"], LOG_IN),
    (
        &[
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "UnrecognizedClientException",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
        ],
        "AWS does not take these credentials; `aws configure list` says where they come from",
    ),
    (&["ApplicationDoesNotExistException"], "give --application NAME; `aws deploy list-applications` lists yours"),
    (
        &["DeploymentGroupDoesNotExistException"],
        "`aws deploy list-deployment-groups --application-name NAME` lists the groups of an application",
    ),
    (
        &["DeploymentDoesNotExistException", "InvalidDeploymentIdException"],
        "give the id that `just deploy` has printed",
    ),
    (&["RevisionDoesNotExistException"], "push it first: `just push BUCKET`"),
    (&["ThrottlingException", "Throttling", "SlowDown"], "too many requests of this account; try again"),
    (&["DeploymentLimitExceededException"], "wait for what is under way, or stop it"),
];
/// What is done about what the CLI itself says, by a part of that.
const WORDS: [(&str, &str); 9] = [
    ("Unable to locate credentials", LOG_IN),
    ("SSO session", LOG_IN),
    ("SSO Token", LOG_IN),
    ("Token has expired", LOG_IN),
    ("must specify a region", "or set AWS_DEFAULT_REGION"),
    ("config profile", "`aws configure list-profiles` lists yours"),
    ("Could not connect to the endpoint URL", "look at the network, and at the region"),
    ("Connection was closed", "look at the network, and try again"),
    ("Unknown options", "use a newer AWS CLI: https://aws.amazon.com/cli"),
];
const LOG_IN: &str = "log in (`aws sso login`, `aws configure`, or as you do), or give AWS_PROFILE";

/// What the CLI says where AWS may have done what it was asked: the answer was lost, or is that something broke there.
const LOST: [&str; 9] = [
    "Connection was closed",
    "Read timeout",
    "Connection broken",
    "Could not parse response",
    "(InternalFailure)",
    "(InternalServerError)",
    "(500)",
    "(502)",
    "(504)",
];

/// Whether nothing was done: the CLI said why itself, and did not lose the answer.
pub fn is_one(said: &str, status: ExitStatus) -> bool {
    status.code().is_some() && !said.trim().is_empty() && !LOST.iter().any(|words| said.contains(words))
}

/// What the CLI printed on standard error, and how it ended.
pub fn explain(said: &str, status: ExitStatus) -> String {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() {
        return status.to_string();
    }
    let (what, remedy) = match parse(&said) {
        Some((code, message)) => (format!("{message} ({code})"), remedy_of_code(code, message)),
        None => {
            (said.clone(), WORDS.iter().find(|(words, _)| said.contains(words)).map(|(_, todo)| (*todo).to_owned()))
        }
    };
    // The rest of what AWS says may be long; what to do comes last and stays whole.
    let what = cut(&printable(what.trim_end_matches(['.', ' '])), LONGEST);
    remedy.map_or_else(|| what.clone(), |todo| format!("{what}: {todo}"))
}

/// `An error occurred (CODE) when calling the NAME operation: MESSAGE`, or `operation (reached max retries: 4): MESSAGE`.
fn parse(said: &str) -> Option<(&str, &str)> {
    let (_, rest) = said.split_once("An error occurred (")?;
    let (code, rest) = rest.split_once(") when calling the ")?;
    let (_, rest) = rest.split_once(" operation").unwrap_or(("", rest));
    let rest = rest.strip_prefix(" (").and_then(|rest| Some(rest.split_once(')')?.1)).unwrap_or(rest);
    let message = rest.trim_start_matches([':', ' ']);
    Some((code, message.trim_end_matches('.')))
}

fn remedy_of_code(code: &str, message: &str) -> Option<String> {
    let todo = CODES.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, todo)| (*todo).to_owned())?;
    // AWS names the deployment that is under way in its message alone, as its last word in quotes.
    let id = message
        .rsplit('\'')
        .nth(1)
        .filter(|_| code == "DeploymentLimitExceededException" && message.contains("active"))
        .and_then(|id| id.parse().ok());
    Some(id.map_or(todo, |id: Id| format!("{}; `just rollback GROUP` stops it, too", hints(&id))))
}

/// How to watch a deployment, and how to stop it.
pub fn hints(id: &Id) -> String {
    format!("watch it: `just watch {id}`; stop it: `aws deploy stop-deployment --deployment-id {id}`")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn told(said: &str) -> String {
        explain(said, ExitStatus::from_raw(255 << 8))
    }

    #[test]
    fn a_deployment_under_way_is_named_with_how_to_watch_and_to_stop_it() {
        let told = told(
            "\nAn error occurred (DeploymentLimitExceededException) when calling the CreateDeployment operation: The Deployment \
             Group 'web' already has an active Deployment 'd-ABCDEFGHI'\n",
        );
        assert!(told.contains("`just watch d-ABCDEFGHI`; stop it: `aws deploy stop-deployment --deployment-id d-ABC"));
        assert_eq!(told.lines().count(), 1);
        let hostile = "An error occurred (DeploymentLimitExceededException) when calling the CreateDeployment operation: the \
                       active Deployment '$(id)'";
        assert!(self::told(hostile).ends_with(": wait for what is under way, or stop it"));
    }

    #[test]
    fn where_the_answer_was_lost_nobody_says_that_nothing_was_done() {
        let [failed, killed] = [255 << 8, 9].map(ExitStatus::from_raw);
        assert!(is_one("An error occurred (AccessDenied) when calling the A operation: No", failed));
        assert!(is_one("Unable to locate credentials", failed));
        assert!(!is_one(
            "An error occurred (InternalFailure) when calling the A operation (reached max retries: 4): ",
            failed
        ));
        assert!(!is_one("Connection was closed before we received a valid response", failed));
        assert!(!is_one("", killed) && !is_one("", failed) && !is_one("warning", killed));
    }

    #[test]
    fn what_to_do_follows_from_the_code_or_from_what_the_cli_says_itself() {
        for (said, todo) in [
            ("An error occurred (NoSuchBucket) when calling the PutObject operation: There is none", "aws s3 ls"),
            ("An error occurred (ExpiredToken) when calling the A operation (reached max retries: 4): Old", "log in"),
            ("\nThe SSO session associated with this profile has expired or is otherwise invalid.", "aws sso login"),
            ("\nYou must specify a region. You can also configure your region by running", "AWS_DEFAULT_REGION"),
        ] {
            assert!(told(said).contains(todo), "{}", told(said));
        }
        assert_eq!(told("An error occurred (New) when calling the A operation: It is.\nBad."), "It is. Bad (New)");
        assert_eq!(told(" \n"), "exit status: 255");
        let tried = "An error occurred (New) when calling the A operation (reached max retries: 4): Rate exceeded";
        assert_eq!(told(tried), "Rate exceeded (New)");
    }
}
