//! What AWS, its CLI or we refuse: one line each, that says what to do, and nothing was changed.

use super::*;

#[test]
fn a_bundle_is_pushed_under_the_name_of_its_release_and_again_to_the_same() {
    let user = User::of(&[]);
    let bundle = good("one");
    let key = format!("app-{}.tgz", bundle.id);
    for _ in 0..2 {
        assert_eq!(user.pushes(&bundle).lines().last(), Some(format!("s3://{BUCKET}/{key}").as_str()));
    }
    let object = user.account.aws(&["s3", "cp", "--quiet", &format!("s3://{BUCKET}/{key}"), "-"]);
    assert!(object == bundle.archive, "it is not what was pushed");
    let listed = user.account.aws(&[
        "s3api",
        "list-objects-v2",
        "--bucket",
        BUCKET,
        "--query",
        "Contents[].Key",
        "--output",
        "text",
    ]);
    assert_eq!(String::from_utf8_lossy(&listed).trim(), key);
}

#[test]
fn a_bundle_that_is_damaged_is_not_pushed() {
    let user = User::of(&[]);
    let file = user.file(&damaged(&good("one")), "damaged.tgz");
    user.is_refused(&["push", BUCKET, "--bundle", file.to_str().unwrap()], &["bin/app"]);
    user.is_refused(&["push", BUCKET, "--bundle", "/nowhere.tgz"], &["/nowhere.tgz"]);
    let listed = user.account.aws(&["s3api", "list-objects-v2", "--bucket", BUCKET]);
    assert!(!String::from_utf8_lossy(&listed).contains("Key\""), "{}", String::from_utf8_lossy(&listed));
}

#[test]
fn what_is_not_there_is_named_with_how_to_find_it() {
    let user = User::of(&[]);
    let bundle = good("one");
    let file = user.file(&bundle.archive, "one.tgz");
    let file = file.to_str().unwrap();
    user.is_refused(&["push", "nowhere", "--bundle", file], &["NoSuchBucket", "aws s3 ls"]);
    let folder = user.folder.path().to_str().unwrap();
    user.is_refused(&["push", BUCKET, "--bundle", folder], &[folder, "`cargo bundle`"]);
    user.is_refused(&["deploy", "web"], &["no revision", "just push BUCKET"]);
    user.is_refused(&["deploy", "web", "--application", "other"], &["ApplicationDoesNotExist", "--application NAME"]);
    user.is_refused(&["deploy", "web", "--revision", "app-0.tgz"], &["give s3://BUCKET/KEY"]);
    user.is_refused(&["rollback", "web"], &["none of its last 50 deployments"]);
    user.is_refused(&["watch", "d-NOWHERE00"], &["DeploymentDoesNotExist", "just deploy"]);
    user.pushes(&bundle);
    user.is_refused(&["deploy", "other"], &["DeploymentGroupDoesNotExist", "list-deployment-groups"]);
    // It is in the bucket by then.
    let ran = user.run(&["push", BUCKET, "--bundle", file, "--application", "other"]);
    assert!(ran.code == 1 && ran.output.contains("is uploaded, and not registered; push again"), "{}", ran.output);
}

#[test]
fn what_cannot_be_a_name_is_refused_before_anybody_is_asked() {
    let nobody = tempfile::tempdir().unwrap();
    for (words, told) in [
        (&["push", "s3://releases"][..], "a bucket's name alone is wanted"),
        (&["push", ""], "a bucket's name alone is wanted"),
        (&["deploy", ""], "<GROUP>"),
        (&["rollback", ""], "<GROUP>"),
        (&["watch", "--", "--no-such"], "is no id"),
    ] {
        let output = Command::new(program("codedeploy")).args(words).env("PATH", nobody.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(told), "{words:?}: {said}");
    }
}

#[test]
fn who_has_no_credentials_region_or_cli_is_told_so() {
    let user = User::of(&[]);
    let without = |names: &[&str]| {
        let mut command = user.command(&["deploy", "web"]);
        for name in names {
            command.env_remove(name);
        }
        command.output().unwrap()
    };
    assert_refused(
        &without(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        &["Unable to locate credentials", "aws sso login"],
    );
    assert_refused(&without(&["AWS_DEFAULT_REGION"]), &["must specify a region", "AWS_DEFAULT_REGION"]);
    let profile = user.command(&["deploy", "web"]).env("AWS_PROFILE", "other").output().unwrap();
    assert_refused(&profile, &["other", "list-profiles"]);
    // A bundle would be made first, with what is not there either.
    for words in [["deploy", "web"], ["push", BUCKET]] {
        let no_cli = user.command(&words).env("PATH", user.folder.path()).output().unwrap();
        assert_refused(&no_cli, &["the AWS CLI is not installed"]);
    }
}

/// moto's own checks, of a user of its own without a policy.
#[test]
fn who_has_no_right_to_it_is_told_so() {
    // Two that make the user, and two that make what it may not use.
    let account = Arc::new(Account::strict_after(4));
    let endpoint = Endpoint::start(&account, &[]);
    bucket_and_application(&account);
    account.aws(&["iam", "create-user", "--user-name", "guest"]);
    let made = account.aws(&["iam", "create-access-key", "--user-name", "guest"]);
    let key: serde_json::Value = serde_json::from_slice(&made).unwrap();
    let text = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let (id, secret) = (text("AccessKeyId"), text("SecretAccessKey"));
    let user = User { endpoint, account, folder: tempfile::tempdir().unwrap() };
    let run = |words: &[&str], secret: &str| {
        let mut command = user.command(words);
        command.env("AWS_ACCESS_KEY_ID", &id).env("AWS_SECRET_ACCESS_KEY", secret).output().unwrap()
    };
    let file = user.file(&good("one").archive, "one.tgz");
    let push = ["push", BUCKET, "--bundle", file.to_str().unwrap()];
    assert_refused(&run(&push, &secret), &["AccessDenied", "aws sts get-caller-identity"]);
    let deploy = ["deploy", "web", "--revision", "s3://releases/app-0.tgz"];
    assert_refused(&run(&deploy, &secret), &["AccessDenied", "aws sts get-caller-identity"]);
    assert_refused(&run(&deploy, "wrong"), &["aws configure list"]);
}
