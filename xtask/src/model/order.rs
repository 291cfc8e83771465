//! What has to be deployed before a service: the app of apps, and the databases that it logs in to.

use serde_json::Value;

use super::world::{App, World};

/// The Application that brings the Application of `service` itself.
pub(crate) fn parent<'a>(world: &'a World, service: &App) -> Option<&'a App> {
    let folder = service.file.folder();
    world.apps.iter().find(|app| app.name != service.name && app.path.as_deref() == Some(folder))
}

/// The Applications with a Database that `service` is configured to use.
pub(crate) fn databases<'a>(world: &'a World, service: &App) -> Vec<&'a App> {
    let mut settings = Vec::new();
    for object in &service.objects {
        collect(&object.typed(), &mut settings);
    }
    let uses = |name: &str| settings.iter().any(|(key, value)| value == name && names_a_database(key));
    let serves = |app: &&App| {
        let databases = app.objects.iter().filter(|object| object.kind == "Database");
        let mut names = databases.filter_map(|object| object.at(&["spec", "name"])?.text());
        app.name != service.name && names.any(uses)
    };
    world.apps.iter().filter(serves).collect()
}

fn names_a_database(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    ["POSTGRES", "DATABASE", "PGDATABASE", "DB_NAME", "DBNAME"].iter().any(|word| key.contains(word))
}

/// Every setting: key and value of a mapping, name and value of an item.
fn collect(value: &Value, settings: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, settings)),
        Value::Object(entries) => {
            if let (Some(name), Some(value)) = (entries.get("name").and_then(Value::as_str), entries.get("value")) {
                settings.push((name.to_owned(), value.as_str().unwrap_or_default().to_owned()));
            }
            for (key, value) in entries {
                settings.extend(value.as_str().map(|text| (key.clone(), text.to_owned())));
                collect(value, settings);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;
    use crate::model::source::Source;
    use crate::model::world::{Facts, Rendered};

    #[test]
    fn databases_come_before_their_users() {
        let app = |name: &str, path: &str| {
            format!(
                "\n//- argocd/apps/{name}.yaml\nkind: Application\nmetadata: {{name: {name}}}\nspec: {{source: {{path: {path}}}, destination: {{server: s}}}}"
            )
        };
        let text = app("apps", "argocd/apps") + &app("web", "m/web") + &app("pg", "m/pg") + &app("other", "m/other");
        let rendered = [
            ("m/web", "kind: Deployment\nmetadata: {name: web}\nspec: {env: [{name: DATABASE_NAME, value: webdb}]}"),
            ("m/pg", "kind: Database\nmetadata: {name: x}\nspec: {name: webdb}"),
            ("m/other", "kind: ConfigMap\nmetadata: {name: y}\ndata: {title: webdb}"),
        ];
        let mut facts = Facts::default();
        for (folder, text) in rendered {
            facts.paths.insert(format!("{folder}/x.yaml"));
            facts.rendered.insert(folder.to_owned(), Rendered::Text(Source::new(folder, text)));
        }
        facts.paths.insert("argocd/apps/web.yaml".to_owned());
        let world = World::new(repo(&text), facts);
        let find = |name: &str| world.apps.iter().find(|app| app.name == name).unwrap();
        let names = |apps: Vec<&App>| apps.iter().map(|app| app.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(databases(&world, find("web"))), ["pg"]);
        assert!(databases(&world, find("other")).is_empty());
        assert_eq!(parent(&world, find("web")).unwrap().name, "apps");
        assert!(parent(&world, find("apps")).is_none());
    }
}
