#!/usr/bin/env bash
# Builds the packages, and tries them: a static binary, a .deb, a tarball, their checksums and the
# Homebrew formula. The .deb is installed into an empty root, runs README's session there, and is
# removed; a second build from another directory must give the same bytes.
#
#     tests/package.sh [DIRECTORY]     the packages go there; target/package by default
#
#     BINARY=FILE   pack this static binary, and build none
#     ONCE=1        no second build
#     URL=PREFIX    where the formula loads the tarball from
#
# Needs cargo, a static C library (libc6-dev), jq, dpkg, busybox (static), unshare. A build takes
# minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
out=$(realpath -m "${1:-target/package}")
target=$(uname -m)-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for tool in cargo jq dpkg dpkg-deb busybox unshare; do
  type -P "$tool" >/dev/null || { echo "package.sh: $tool is missing" >&2; exit 5; }
done
metadata=$(cargo metadata --no-deps --format-version 1 | jq '.packages[0]')
field() { jq -r "$1" <<<"$metadata"; }
name=$(field .name) version=$(field .version)
stem=$name-$version-$target
# All times in the packages: that of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022

# build DIRECTORY: a static binary of the files that git knows, built in DIRECTORY. glibc: rustup's
# toolchains come without a musl library. Paths of this machine do not reach the binary.
build() {
  mkdir -p "$1/source"
  git ls-files -z | tar --null -cf - -T - | tar -xf - -C "$1/source"
  (
    cd "$1/source"
    flags="-C target-feature=+crt-static -C relocation-model=static"
    flags+=" --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/source"
    RUSTFLAGS=$flags CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=../target \
      cargo build --locked --profile dist --target "$target"
  )
  cp "$1/target/$target/dist/$name" "$1/$name"
  rm -rf "$1/target" "$1/source"
}

# The licences of the crates in the binary, each text once.
licences() {
  local packages text
  packages=$(cargo metadata --locked --format-version 1 --filter-platform "$target")
  cargo tree --locked --target "$target" -e normal --prefix none -f '{p}' | sed 's/ (.*//' |
    sort -u | while read -r crate number; do
    [ "$crate" != "$name" ] || continue
    number=${number#v}
    jq -r --arg n "$crate" --arg v "$number" '.packages[] | select(.name == $n and .version == $v)
      | [.name, .version, .license // "see its file", (.manifest_path | rtrimstr("/Cargo.toml"))]
      | @tsv' <<<"$packages"
  done | while IFS=$'\t' read -r crate number licence home; do
    # Of several licences the first that is here; ours is MIT, too.
    text=$(find "$home" -maxdepth 1 -type f \( -iname 'license*mit*' -o -iname 'mit*' \) | sort | head -1)
    [ -n "$text" ] || text=$(find "$home" -maxdepth 1 -type f \( -iname 'licen*' -o -iname 'copying*' \
      -o -iname 'unlicense*' \) | sort | head -1)
    printf '%s %s: %s\n' "$crate" "$number" "$licence" >>"$work/crates"
    [ -z "$text" ] || { sha256sum <"$text" | cut -c1-16; printf '%s\t%s\n' "$crate" "$text"; } |
      paste - - >>"$work/texts"
  done
  echo "Crates in this binary, and their licences:"
  echo
  cat "$work/crates"
  cut -f1 "$work/texts" | sort -u | while read -r digest; do
    printf '\n---- '
    awk -v d="$digest" -F'\t' '$1 == d {printf "%s%s", comma, $2; comma = ", "}' "$work/texts"
    printf '\n\n'
    cat "$(awk -v d="$digest" -F'\t' '$1 == d {print $3; exit}' "$work/texts")"
  done
}

digest() { sha256sum "$1" | cut -d' ' -f1; }
checksums() { (cd "$1" && sha256sum ./*.deb ./*.tar.gz | sed 's|\./||'); }

# archive ARGUMENT…: a tarball that depends on names and contents only.
archive() {
  tar --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w --format=gnu \
    --mtime="@$SOURCE_DATE_EPOCH" -cf - "$@" | gzip -9n
}

# pack BINARY DIRECTORY: stages what the binary prints, and makes the packages from the lists in
# Cargo.toml, which cargo-deb and cargo-binstall read, too.
pack() {
  local binary=$1 to=$2 stage=$repository/target/package/stage tree=$work/tree page
  rm -rf "$stage" "$tree" "$to"
  mkdir -p "$stage/man" "$stage/completions" "$to" "$tree/deb/DEBIAN" "$tree/$stem"
  install -m 755 "$binary" "$stage/$name"
  # By its name, as users call it: a path would become a part of the completions.
  run() { PATH=$stage:$PATH HOME=$work "$name" "$@"; }
  run man "$stage/man" >"$work/pages"
  gzip -9n "$stage"/man/*.1
  run completions bash >"$stage/completions/$name.bash"
  run completions zsh >"$stage/completions/_$name"
  run completions fish >"$stage/completions/$name.fish"
  cp "$work/licences" "$stage/THIRD-PARTY"

  # The .deb.
  local from target_path mode
  while IFS=$'\t' read -r from target_path mode; do
    case $from in target/release/*) from=$stage/${from##*/} ;; esac
    for page in $from; do
      case $target_path in
        */) install -D -m "$mode" "$page" "$tree/deb/$target_path${page##*/}" ;;
        *) install -D -m "$mode" "$page" "$tree/deb/$target_path" ;;
      esac
    done
  done < <(field '.metadata.deb.assets[] | @tsv')
  {
    echo "Package: $name"
    echo "Version: $version-1"
    echo "Section: $(field .metadata.deb.section)"
    echo "Priority: $(field .metadata.deb.priority)"
    echo "Architecture: $(dpkg --print-architecture)"
    echo "Maintainer: $(field .metadata.deb.maintainer)"
    echo "Installed-Size: $(du -sk --apparent-size "$tree/deb/usr" | cut -f1)"
    echo "Description: $(field .description)"
    field '.metadata.deb["extended-description"]' | sed 's/^/ /; s/^ $/ ./'
  } >"$tree/deb/DEBIAN/control"
  (cd "$tree/deb" && find usr -type f | sort | xargs md5sum >DEBIAN/md5sums)
  find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zxz --build "$tree/deb" "$to" >/dev/null

  # The tarball.
  cp -r "$stage/$name" "$stage/man" "$stage/completions" "$stage/THIRD-PARTY" LICENSE README.md \
    CHANGELOG.md docs "$tree/$stem"
  archive -C "$tree" "$stem" >"$to/$stem.tar.gz"
  git ls-files -z | archive --transform "s|^|$name-$version/|" --null -T - \
    >"$to/$name-$version-source.tar.gz"
  checksums "$to" >"$to/SHA256SUMS"

  sed -e "s|@VERSION@|$version|" -e "s|@URL@|${URL:-https://example.invalid/$name/v$version}|" \
    -e "s|@SHA256@|$(digest "$to/$stem.tar.gz")|" -e "s|@STEM@|$stem|" \
    -e "s|@SOURCE_SHA256@|$(digest "$to/$name-$version-source.tar.gz")|" \
    "docs/packaging/$name.rb" >"$to/$name.rb"
}

# Lists what is in a root, without what README's session makes and dpkg's own records.
contents() { (cd "$1" && find . -path ./proc -prune -o -path ./dev -prune -o -path ./home -prune \
  -o -path ./tmp -prune -o -path ./var/lib/dpkg -prune -o -print | sort); }

# README's session, as `COMMAND` and the lines it must print, in which `…` is anything.
session() { awk '/^```/ {inside = $0 == "```console"; next} inside' README.md; }

# try PACKAGE: in an empty root with a shell and no libraries.
try() {
  local root=$work/root
  mkdir -p "$root"/{bin,proc,dev,home,tmp,var/lib/dpkg/{info,updates}}
  touch "$root"/var/lib/dpkg/{status,available}
  cp "$(type -P busybox)" "$root/bin/busybox"
  "$root/bin/busybox" --list | grep -vx busybox | while read -r applet; do
    ln -s busybox "$root/bin/$applet"
  done
  contents "$root" >"$work/before"
  dpkg --root="$root" --log=/dev/null -i "$1" >/dev/null
  contents "$root" | comm -13 "$work/before" - | wc -l | sed 's/$/ files and directories installed/'
  session >"$work/session"
  unshare --map-root-user --mount --pid --fork bash -euo pipefail -s "$root" "$work/session" <<'INSIDE'
    root=$1
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    count=0 shown=() command=
    # compare COMMAND LINE…: runs it, and compares what it prints.
    compare() {
      local command=$1 printed expected line
      shift
      printed=$(chroot "$root" /bin/env -i PATH=/usr/bin:/bin HOME=/home \
        sh -c "cd /home && { $command
} 2>&1" </dev/null | sed 's|/home/||g') || true
      expected=$#
      [ "$(grep -c '' <<<"$printed")" = "$expected" ] || [ "$expected$printed" = 0 ] ||
        { printf 'package.sh: %s printed:\n%s\n' "$command" "$printed" >&2; exit 1; }
      while [ $# -gt 0 ] && IFS= read -r line; do
        pattern=${1//\\/\\\\}; pattern=${pattern//\[/\\[}; pattern=${pattern//\?/\\?}
        pattern=${pattern//\*/\\*}; pattern=${pattern//…/*}
        # shellcheck disable=SC2053 # it is a pattern
        [[ $line == $pattern ]] ||
          { printf 'package.sh: %s printed:\n%s\nnot:\n%s\n' "$command" "$line" "$1" >&2; exit 1; }
        shift
      done <<<"$printed"
    }
    run() { [ -z "$command" ] || { compare "$command" "${shown[@]}"; count=$((count + 1)); }; }
    while IFS= read -r line; do
      case $line in
        '$ '*) run; command=${line#'$ '} shown=() ;;
        *) shown+=("$line") ;;
      esac
    done <"$2"
    run
    echo "$count commands of README's session ran as it shows"
    [ "$count" -ge 8 ]
INSIDE
  dpkg --root="$root" --log=/dev/null --purge "$name" >/dev/null
  contents "$root" | diff "$work/before" - || { echo "package.sh: something is left" >&2; exit 1; }
  echo "removed: nothing is left"
}

if [ -n "${BINARY:-}" ]; then
  binary=$(realpath "$BINARY")
else
  build "$work/one"
  binary=$work/one/$name
fi
! ldd "$binary" 2>/dev/null >&2 || { echo "package.sh: $binary is not static" >&2; exit 1; }
licences >"$work/licences"
pack "$binary" "$out"
try "$out"/*.deb
if [ -z "${BINARY:-}${ONCE:-}" ]; then
  build "$work/elsewhere/two"
  pack "$work/elsewhere/two/$name" "$work/again"
  checksums "$work/again" | diff "$out/SHA256SUMS" - ||
    { echo "package.sh: the second build differs" >&2; exit 1; }
  cmp "$binary" "$work/elsewhere/two/$name"
  echo "the second build has the same bytes"
fi
(cd "$out" && ls -l && cat SHA256SUMS)
