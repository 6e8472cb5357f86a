//! `aws/template.yml`.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{file, yaml};

const PATH: &str = "crates/rig/aws/template.yml";

fn template() -> Value {
    yaml(PATH)
}

/// Each statement that allows something, of roles' rights, with the comment above it.
fn statements() -> Vec<(Value, String)> {
    let text = file(PATH);
    let template = template();
    let roles = template["Resources"].as_object().unwrap().values().filter(|one| one["Type"] == "AWS::IAM::Role");
    let policies = roles.flat_map(|role| role["Properties"]["Policies"].as_array().unwrap());
    let statements = policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
    statements.map(|statement| (statement.clone(), reason(&text, statement["Sid"].as_str().unwrap()))).collect()
}

fn reason(text: &str, sid: &str) -> String {
    let (before, _) = text.split_once(&format!("- Sid: {sid}\n")).unwrap();
    let above = before.lines().rev().skip(1).map(str::trim);
    let mut comment: Vec<&str> = above.map_while(|line| line.strip_prefix("# ")).collect();
    comment.reverse();
    comment.join(" ")
}

/// One, or a list of them.
fn all(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(many) => many.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

#[test]
fn each_right_has_its_reason_and_names_its_actions() {
    let statements = statements();
    assert!(statements.len() > 8, "{statements:?}");
    for (statement, reason) in statements {
        assert!(!reason.is_empty(), "no reason: {statement}");
        let actions = all(&statement["Action"]);
        assert!(!actions.iter().any(|action| action.contains('*')), "{statement}");
    }
}

/// Who adds to these has looked the action up: in Amazon's reference it stands without a resource.
const OF_NO_RESOURCE: [&str; 7] = [
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeLifecycleHooks",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceStatus",
    "codedeploy:ListDeploymentTargets",
    "codedeploy:BatchGetDeploymentTargets",
    "codedeploy:StopDeployment",
];

#[test]
fn a_right_to_everything_is_one_whose_actions_know_no_resource_and_says_so() {
    for (statement, reason) in statements() {
        let resource = statement["Resource"].as_str().unwrap();
        if resource == "*" {
            assert!(reason.contains("These actions know no resource"), "{statement}: {reason}");
            assert!(all(&statement["Action"]).iter().all(|action| OF_NO_RESOURCE.contains(action)), "{statement}");
        } else {
            assert!(
                ["arn:${AWS::Partition}:", "${Bucket.Arn}/app-"].iter().any(|ours| resource.starts_with(ours)),
                "{resource}"
            );
        }
    }
}

#[test]
fn a_host_may_read_bundles_and_nothing_else() {
    let statements =
        &template()["Resources"]["InstanceRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"];
    assert_eq!(statements.as_array().unwrap().len(), 1, "{statements}");
    assert_eq!(statements[0]["Resource"], "${Bucket.Arn}/app-*");
    assert_eq!(all(&statements[0]["Action"]), ["s3:GetObject", "s3:GetObjectVersion"]);
}

/// What CreateDeployment looks up with the rights of whoever asks.
const LOOKED_UP: [&str; 2] = ["codedeploy:GetApplicationRevision", "codedeploy:GetDeploymentConfig"];

#[test]
fn the_workflows_may_do_what_cargo_codedeploy_asks_and_nothing_else() {
    let policies = template()["Resources"]["WorkflowRole"]["Properties"]["Policies"].clone();
    assert_eq!(policies.as_array().unwrap().len(), 1, "{policies}");
    let statements = policies[0]["PolicyDocument"]["Statement"].as_array().unwrap().clone();
    let granted: BTreeSet<String> =
        statements.iter().flat_map(|statement| all(&statement["Action"])).map(str::to_owned).collect();
    let asked: BTreeSet<String> = asked().into_iter().chain(LOOKED_UP.map(str::to_owned)).collect();
    assert_eq!(granted, asked);
}

/// As its source has it: `Request::new("deploy", "get-deployment")`, or of a group `self.request("list-deployments")`.
fn asked() -> BTreeSet<String> {
    let folder = rig::workspace().join("crates/releases/src/codedeploy");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let text = files.collect::<String>().replace(".request(\"", "Request::new(\"deploy\", \"");
    let calls = text.split("Request::new(\"").skip(1).filter_map(|call| {
        let (service, rest) = call.split_once('"')?;
        let (operation, _) = rest.strip_prefix(", \"")?.split_once('"')?;
        // Everybody may ask who they are.
        (service != "sts").then(|| action(service, operation))
    });
    let actions = calls.collect::<BTreeSet<_>>();
    assert!(actions.len() > 8, "{actions:?}");
    actions
}

/// `s3api put-object` is `s3:PutObject`.
fn action(service: &str, operation: &str) -> String {
    let service = match service {
        "s3api" => "s3",
        "deploy" => "codedeploy",
        other => panic!("whose rights are those of aws {other}?"),
    };
    let words = operation.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    format!("{service}:{}", words.collect::<String>())
}

/// A host that leaves the rotation is what this product does without.
#[test]
fn the_group_deploys_in_place_takes_no_host_from_a_balancer_and_goes_back() {
    let template = template();
    let group = &template["Resources"]["DeploymentGroup"]["Properties"];
    for absent in ["LoadBalancerInfo", "BlueGreenDeploymentConfiguration", "TriggerConfigurations"] {
        assert_eq!(group.get(absent), None);
    }
    assert_eq!(group["DeploymentStyle"]["DeploymentType"], "IN_PLACE");
    assert_eq!(group["DeploymentStyle"]["DeploymentOption"], "WITHOUT_TRAFFIC_CONTROL");
    assert_eq!(group["AutoRollbackConfiguration"]["Enabled"], true);
    assert_eq!(all(&group["AutoRollbackConfiguration"]["Events"]), ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"]);
}

#[test]
fn every_alarm_stops_a_deployment() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap();
    let alarms = resources.iter().filter(|(_, one)| one["Type"] == "AWS::CloudWatch::Alarm");
    let configuration = template["Resources"]["DeploymentGroup"]["Properties"]["AlarmConfiguration"].clone();
    assert_eq!(configuration["Enabled"], true);
    let asked = configuration["Alarms"].to_string();
    for (name, alarm) in alarms {
        assert!(asked.contains(&format!("\"{name}\"")), "{name}: {asked}");
        assert_eq!(
            alarm["Properties"]["TreatMissingData"], "notBreaching",
            "{name} must not be on for want of clients"
        );
    }
}

#[test]
fn a_host_answers_no_question_for_its_credentials_without_a_token() {
    let data = template()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"].clone();
    assert_eq!(data["MetadataOptions"]["HttpTokens"], "required");
    assert_eq!(data["MetadataOptions"]["HttpPutResponseHopLimit"], 1);
}

#[test]
fn the_user_data_is_the_script_word_for_word() {
    let data = template()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"].clone();
    let script = file("crates/rig/aws/user-data.sh");
    assert_eq!(
        data["Fn::Base64"].as_str(),
        Some(&*script),
        "put user-data.sh into template.yml, below `Fn::Base64: |`"
    );
    assert!(script.len() < 16 << 10, "EC2 takes 16 KiB");
}

#[test]
fn only_one_environment_of_one_repository_gets_the_workflows_role() {
    let trust = template()["Resources"]["WorkflowRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"].clone();
    assert_eq!(trust.as_array().unwrap().len(), 1);
    let condition = trust[0]["Condition"].as_object().unwrap();
    assert_eq!(condition.keys().collect::<Vec<_>>(), ["StringEquals"], "nothing that takes a pattern");
    let subject = &condition["StringEquals"]["token.actions.githubusercontent.com:sub"];
    assert_eq!(subject, "repo:${Repository}:environment:${Environment}");
}

/// In the words of README.md.
#[test]
fn an_alarm_is_on_after_two_minutes_or_five_failures_in_one() {
    let template = template();
    let alarm = |name: &str| template["Resources"][name]["Properties"].clone();
    for name in ["HostAlarm", "UnhealthyAlarm"] {
        assert_eq!((&alarm(name)["Period"], &alarm(name)["EvaluationPeriods"]), (&60.into(), &2.into()), "{name}");
    }
    let failures = alarm("FailureAlarm");
    assert_eq!((&failures["EvaluationPeriods"], &failures["Threshold"]), (&1.into(), &"Failures".into()));
    assert_eq!(template["Parameters"]["Failures"]["Default"], 5);
}

#[test]
fn revisions_are_private_encrypted_and_versioned_and_none_expires_by_age() {
    let bucket = template()["Resources"]["Bucket"]["Properties"].clone();
    let closed = bucket["PublicAccessBlockConfiguration"].as_object().unwrap();
    assert!(closed.len() == 4 && closed.values().all(|is_closed| is_closed == true), "{closed:?}");
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    assert!(bucket.get("BucketEncryption").is_some());
    for rule in bucket["LifecycleConfiguration"]["Rules"].as_array().unwrap() {
        assert!(["ExpirationInDays", "ExpirationDate"].iter().all(|expires| rule.get(expires).is_none()), "{rule}");
    }
}

#[test]
fn a_host_is_reached_on_port_80_and_reaches_others_on_443() {
    let group = template()["Resources"]["SecurityGroup"]["Properties"].clone();
    let ports = |way: &str| -> Vec<_> {
        let rules = group[way].as_array().unwrap().iter();
        rules.map(|rule| (rule["FromPort"].as_u64(), rule["ToPort"].as_u64())).collect()
    };
    assert_eq!(ports("SecurityGroupIngress"), [(Some(80), Some(80))]);
    assert_eq!(ports("SecurityGroupEgress"), [(Some(443), Some(443)); 2]);
}
