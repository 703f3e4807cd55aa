//! What is typed after `-m` and what it finds.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use model::{Found, HubCache, ModelFiles, Origin, resolve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::fixtures;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn write(path: PathBuf, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A cache with one snapshot of `id` that holds these files.
fn cache_with(id: &str, files: &[&str]) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let repository = root
        .path()
        .join(format!("models--{}", id.replace('/', "--")));
    write(repository.join("refs/main"), &format!("{COMMIT}\n"));
    write(repository.join("refs/refs/pr/1"), COMMIT);
    for file in files {
        write(repository.join("snapshots").join(COMMIT).join(file), "{}");
    }
    std::fs::create_dir_all(repository.join("snapshots").join(COMMIT)).unwrap();
    (root, repository)
}

fn find(argument: &str, root: &Path) -> Result<Found, String> {
    resolve(argument, &HubCache::at(root), &BTreeMap::new()).map_err(|error| error.to_string())
}

fn refused(argument: &str, root: &Path, words: &[&str]) {
    let error = find(argument, root).expect_err(argument);
    for word in words {
        assert!(error.contains(word), "{error} lacks {word}");
    }
}

#[test]
fn a_path_comes_first() {
    let folder = fixtures::folder("llama2");
    let argument = folder.to_str().unwrap();
    let found = find(argument, Path::new("nowhere")).unwrap();
    assert_eq!(
        found,
        Found {
            path: folder.clone(),
            origin: Origin::Path
        }
    );
    ModelFiles::open(&found.path).unwrap();
    let ggufs = tempfile::tempdir().unwrap();
    let path = ggufs.path().to_str().unwrap().to_owned();
    refused(
        &path,
        ggufs.path(),
        &["config.json is missing", "a .gguf file"],
    );
    write(ggufs.path().join("m-Q8_0.gguf"), "");
    assert_eq!(
        find(&path, ggufs.path()).unwrap().path,
        ggufs.path().join("m-Q8_0.gguf")
    );
    write(ggufs.path().join("m-Q4_K_M.gguf"), "");
    refused(
        &path,
        ggufs.path(),
        &["m-Q4_K_M.gguf, m-Q8_0.gguf", ":quant"],
    );
}

#[test]
fn an_id_is_found_in_the_cache_by_branch_commit_or_pull_request() {
    let (root, repository) = cache_with("org/name", &["config.json", "model.safetensors"]);
    let path = repository.join("snapshots").join(COMMIT);
    let origin = Origin::HubCache {
        id: "org/name".into(),
        commit: COMMIT.into(),
    };
    for argument in [
        "org/name",
        "org/name@main",
        &format!("org/name@{COMMIT}"),
        "org/name@refs/pr/1",
    ] {
        let found = find(argument, root.path()).unwrap();
        assert_eq!(
            found,
            Found {
                path: path.clone(),
                origin: origin.clone()
            },
            "{argument}"
        );
    }
    refused(
        "org/name@v2",
        root.path(),
        &["refs/v2", "hf download org/name --revision v2"],
    );
    refused(
        "org/other",
        root.path(),
        &["models--org--other", "hf download org/other"],
    );
}

#[test]
fn a_gguf_in_the_cache_is_chosen_by_its_quant() {
    let files = [
        "m-Q4_K_M.gguf",
        "m-Q8_0.gguf",
        "m-F16-00001-of-00002.gguf",
        "m-F16-00002-of-00002.gguf",
    ];
    let (root, repository) = cache_with("org/name-GGUF", &files);
    let chosen = |quant: &str| {
        let found = find(&format!("org/name-GGUF{quant}"), root.path())?;
        Ok::<_, String>(
            found
                .path
                .strip_prefix(repository.join("snapshots").join(COMMIT))
                .unwrap()
                .to_owned(),
        )
    };
    assert_eq!(chosen(":Q4_K_M").unwrap(), Path::new(files[0]));
    assert_eq!(chosen(":q8_0").unwrap(), Path::new(files[1]));
    assert_eq!(chosen(":F16").unwrap(), Path::new(files[2]));
    for (quant, word) in [
        (":Q5_K", "m-Q8_0.gguf"),
        ("", ":quant"),
        (":_0", "whose name ends"),
    ] {
        let error = chosen(quant).unwrap_err();
        assert!(error.contains(word), "{error} lacks {word}");
    }
}

#[test]
fn incomplete_snapshots_name_what_they_lack() {
    let words = ["incomplete", "hf download org/name", COMMIT];
    let (root, _) = cache_with("org/name", &["config.json"]);
    refused(
        "org/name",
        root.path(),
        &[&words[..], &["model.safetensors"]].concat(),
    );
    let (root, _) = cache_with("org/name", &["model.safetensors"]);
    refused(
        "org/name",
        root.path(),
        &[&words[..], &["lacks config.json"]].concat(),
    );

    let (root, repository) = cache_with("org/name", &["config.json", "a.safetensors"]);
    let index = r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#;
    let snapshot = repository.join("snapshots").join(COMMIT);
    write(snapshot.join("model.safetensors.index.json"), index);
    refused(
        "org/name",
        root.path(),
        &[&words[..], &["lacks b.safetensors;"]].concat(),
    );
    write(snapshot.join("b.safetensors"), "");
    find("org/name", root.path()).unwrap();

    // The listing of the commit knows of a file that nothing here mentions.
    let listing = r#"{"format_version": 1, "files": {"tokenizer.json": {"size": 3}, "README.md": {"size": 1},
        "original/consolidated.safetensors": {"size": 1}, "config.json": {"size": 2}}}"#;
    write(
        repository.join("trees").join(format!("{COMMIT}.json")),
        listing,
    );
    refused(
        "org/name",
        root.path(),
        &[&words[..], &["lacks tokenizer.json;"]].concat(),
    );
    let listed = HubCache::at(root.path()).list();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id.as_str(), &listed[0].refs[..]),
        ("org/name", &["main".to_owned(), "refs/pr/1".into()][..])
    );
    assert_eq!(listed[0].missing, ["tokenizer.json"]);
    assert_eq!(listed[0].size_in_bytes, 2 + 2 + index.len() as u64);
}

/// The weights of a snapshot may be links into `blobs`, and a link may lead nowhere.
#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_missing_files() {
    let (root, repository) = cache_with("org/name", &["config.json"]);
    let blob = repository.join("blobs/abc");
    let link = repository
        .join("snapshots")
        .join(COMMIT)
        .join("model.safetensors");
    std::os::unix::fs::symlink("../../blobs/abc", link).unwrap();
    refused("org/name", root.path(), &["lacks model.safetensors"]);
    write(blob, "");
    find("org/name", root.path()).unwrap();
}

#[test]
fn an_alias_comes_last_and_stands_for_an_id_or_a_path() {
    let (root, repository) = cache_with("org/name", &["config.json", "model.safetensors"]);
    let cache = HubCache::at(root.path());
    let aliases: BTreeMap<String, String> = [
        ("small", "org/name"),
        ("gone", "org/gone"),
        ("loop", "small"),
    ]
    .map(|(alias, target)| (alias.into(), target.into()))
    .into();
    let found = resolve("small", &cache, &aliases).unwrap();
    assert_eq!(found.path, repository.join("snapshots").join(COMMIT));
    assert_eq!(found.origin, Origin::Alias("org/name".into()));
    let error = |argument| resolve(argument, &cache, &aliases).unwrap_err().to_string();
    assert!(error("gone").contains("hf download org/gone"));
    assert!(error("loop").contains("which loop is an alias of"));
    assert!(error("other").contains("gone, loop, small"));
}

#[test]
fn what_looks_like_a_path_is_not_searched_in_the_cache() {
    let root = tempfile::tempdir().unwrap();
    for argument in [
        "./org/name",
        "../name",
        "/no/such",
        "a/b/c",
        "m.gguf",
        "org/..",
        "../..",
        "org/na--me",
    ] {
        if !Path::new(argument).exists() {
            refused(argument, root.path(), &["taken for a path"]);
        }
    }
    refused(
        "plain",
        root.path(),
        &["plain", "aliases (none)", "org/name"],
    );
    refused("", root.path(), &["no model"]);
}

#[test]
fn the_cache_is_where_huggingface_hub_looks() {
    let root = |set: &[(&str, &str)]| {
        let set: BTreeMap<String, std::ffi::OsString> = set
            .iter()
            .map(|(name, value)| ((*name).into(), value.into()))
            .collect();
        HubCache::from_env(|name| set.get(name).cloned())
            .root()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(root(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
    assert_eq!(
        root(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
        "/x/huggingface/hub"
    );
    assert_eq!(
        root(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")]),
        "/f/hub"
    );
    assert_eq!(
        root(&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")]),
        "/o"
    );
    assert_eq!(
        root(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/o")]),
        "/c"
    );
    assert_eq!(
        root(&[("HF_HUB_CACHE", ""), ("HOME", "/h")]),
        "/h/.cache/huggingface/hub"
    );
    assert!(HubCache::at("/no/such/place").list().is_empty());
}
