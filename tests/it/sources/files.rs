//! A rule file: every kind of edit, and what may go wrong with it.

use std::path::Path;

use super::*;

#[tokio::test]
async fn a_rule_file_is_in_force_at_once_and_after_each_kind_of_edit() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(site.spec());
    assert_eq!(&*running.now().document, TO_A, "there before anything is awaited");

    // The first edit may come before the watch is in place; the later ones are measured.
    fs::write(site.file(), TO_B).unwrap();
    running.until_document(TO_B).await;
    let in_place = measured(&mut running, TO_A, async { fs::write(site.file(), TO_A).unwrap() }).await;
    let by_rename = measured(&mut running, TO_B, async {
        let new = site.folder.path().join("rules/.app.yaml.swp");
        fs::write(&new, TO_B).unwrap();
        fs::rename(new, site.file()).unwrap();
    })
    .await;
    println!("edit to in force: file in place {in_place:.1} ms, by rename {by_rename:.1} ms");
    // Watched, not only polled: the look at the stamp comes once a second.
    assert!(in_place.min(by_rename) < 500.0, "{in_place} {by_rename}");
    assert!(running.now().generation >= 4);
}

#[tokio::test]
async fn a_swapped_symlink_is_followed_as_kubernetes_does_it() {
    let site = Site::new();
    let folder = site.folder.path().join("rules");
    let mount = |name: &str, text: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("app.yaml"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    mount("..2026_1", TO_A);
    std::os::unix::fs::symlink("..data/app.yaml", site.file()).unwrap();
    let mut running = Running::start(site.spec());
    running.until_document(TO_A).await;
    mount("..2026_2", TO_B);
    running.until_document(TO_B).await;
}

#[tokio::test]
async fn a_broken_rule_file_changes_nothing_and_is_named() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let mut running = Running::start(site.spec());
    fs::write(site.file(), BROKEN).unwrap();
    let refused = running.until("refused", |published| published.rejected).await;
    assert_eq!(&*refused.document, TO_A);
    let told = refused.problems.to_string();
    assert!(told.contains("app.yaml"), "{told}");

    fs::write(site.file(), TO_B).unwrap();
    let mended = running.until_document(TO_B).await;
    assert!(!mended.rejected && mended.problems.is_empty(), "{mended:?}");
    assert!(mended.generation > refused.generation);
}

#[tokio::test]
async fn a_rule_file_that_disappears_or_is_emptied_keeps_the_last_good_rules() {
    let site = Site::new();
    let mut running = Running::start(site.spec());
    let none = running.now();
    assert!(none.document.is_empty() && none.problems.is_empty(), "no file is no problem at first");

    fs::write(site.file(), TO_A).unwrap();
    running.until_document(TO_A).await;
    for (what, act) in [
        ("is gone", Box::new(|path: &Path| fs::remove_file(path).unwrap()) as Box<dyn Fn(&Path)>),
        ("is empty", Box::new(|path: &Path| fs::write(path, "").unwrap())),
        ("is gone", Box::new(|path: &Path| fs::remove_dir_all(path.parent().unwrap()).unwrap())),
    ] {
        act(&site.file());
        let kept = running.until(what, |published| published.problems.to_string().contains(what)).await;
        assert_eq!(&*kept.document, TO_A, "{what}");
        assert!(kept.rejected);
    }
    fs::create_dir(site.folder.path().join("rules")).unwrap();
    fs::write(site.file(), TO_B).unwrap();
    assert!(!running.until_document(TO_B).await.rejected);
}

#[tokio::test]
async fn a_restart_with_a_broken_or_missing_rule_file_routes_as_before() {
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    let running = Running::start(site.spec());
    running.promote("aaaaaaa").await.unwrap();
    running.stop().await;

    fs::write(site.file(), BROKEN).unwrap();
    let running = Running::start(site.spec());
    let published = running.now();
    assert_eq!(&*published.document, TO_A, "in force before anything is awaited");
    assert_eq!(published.aliases["current"], "aaaaaaa");
    assert!(published.rejected);
    running.stop().await;

    fs::remove_file(site.file()).unwrap();
    let running = Running::start(site.spec());
    assert_eq!(&*running.now().document, TO_A);
    assert!(running.now().problems.to_string().contains("gone"), "{}", running.now().problems);
    running.stop().await;

    fs::write(site.state().join("app/last-good.json"), "{").unwrap();
    let running = Running::start(site.spec());
    assert!(running.now().document.is_empty());
    assert!(running.now().problems.to_string().contains("last-good.json"), "{}", running.now().problems);
    assert_eq!(running.now().aliases["current"], "aaaaaaa", "the aliases have a file of their own");
}

#[tokio::test]
async fn rules_set_writes_the_file_with_its_mode_and_guards_it_against_edits_by_hand() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    fs::write(site.file(), TO_A).unwrap();
    fs::set_permissions(site.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let running = Running::start(site.spec());
    let read = running.now().revision;

    for bad in [BROKEN, "", " \n"] {
        let refused = running.change(document(bad, None)).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Invalid(_)), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(site.file()).unwrap(), TO_A, "what is refused is not written");

    running.change(document(TO_B, Some(read))).await.unwrap();
    assert_eq!(&*running.now().document, TO_B, "in force when it is answered");
    assert_eq!(fs::read_to_string(site.file()).unwrap(), TO_B);
    assert_eq!(fs::metadata(site.file()).unwrap().permissions().mode() & 0o777, 0o640);
    let conflict = running.change(document(TO_A, Some(read))).await.unwrap_err();
    assert!(matches!(conflict, ChangeError::Conflict { expected, .. } if expected == read), "{conflict:?}");

    let read = running.now().revision;
    fs::write(site.file(), TO_A).unwrap();
    let conflict = running.change(document(TO_B, Some(read))).await.unwrap_err();
    assert!(matches!(conflict, ChangeError::Conflict { .. }), "an edit by hand counts at once: {conflict:?}");
}
