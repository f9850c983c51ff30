# Sourced by the other scripts: finding and installing what a machine lacks.

# One line on stderr, then the end.
stop() {
    echo "$1" >&2
    exit 1
}

# Where SoftHSM2's module is, or nothing.
softhsm_module() {
    local path
    for path in "${SOFTHSM2_MODULE:-}" \
        /usr/lib/softhsm/libsofthsm2.so \
        /usr/lib/*/softhsm/libsofthsm2.so \
        /usr/lib64/pkcs11/libsofthsm2.so \
        /usr/lib64/softhsm/libsofthsm2.so \
        /usr/local/lib/softhsm/libsofthsm2.so \
        /opt/homebrew/lib/softhsm/libsofthsm2.so; do
        if [ -n "$path" ] && [ -f "$path" ]; then
            echo "$path"
            return
        fi
    done
}

# Runs a command as root, or fails.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@" 2>/dev/null
    fi
}

# Installs SoftHSM2 from the system's packages if it is missing, and says where it is in SOFTHSM2_MODULE.
need_softhsm() {
    [ -n "$(softhsm_module)" ] || install_softhsm
    SOFTHSM2_MODULE=$(softhsm_module)
    [ -n "$SOFTHSM2_MODULE" ] || stop "SoftHSM2 is missing: install the package softhsm2 (Debian, Ubuntu) or softhsm (others)"
    export SOFTHSM2_MODULE
}

install_softhsm() {
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        as_root apt-get install -qq -y softhsm2 >/dev/null 2>&1 ||
            { as_root apt-get update -qq >/dev/null 2>&1 && as_root apt-get install -qq -y softhsm2 >/dev/null 2>&1; } || true
    elif command -v dnf >/dev/null; then
        as_root dnf install -q -y softhsm || true
    elif command -v apk >/dev/null; then
        as_root apk add -q softhsm || true
    elif command -v pacman >/dev/null; then
        as_root pacman -S --noconfirm --quiet softhsm || true
    elif command -v brew >/dev/null; then
        brew install --quiet softhsm || true
    fi
}

# Installs p11-kit's server and its client module from the system's packages if they are missing. Where there are none, its
# test says so and is skipped.
want_p11kit() {
    ! require_p11kit || return 0
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        as_root apt-get install -qq -y p11-kit p11-kit-modules >/dev/null 2>&1 ||
            { as_root apt-get update -qq >/dev/null 2>&1 &&
                as_root apt-get install -qq -y p11-kit p11-kit-modules >/dev/null 2>&1; } || true
    elif command -v dnf >/dev/null; then
        as_root dnf install -q -y p11-kit p11-kit-server || true
    elif command -v apk >/dev/null; then
        as_root apk add -q p11-kit p11-kit-server || true
    elif command -v pacman >/dev/null; then
        as_root pacman -S --noconfirm --quiet p11-kit || true
    fi
    require_p11kit || echo "p11-kit is missing: remote_module.rs and through_server.rs will be skipped" >&2
}

# If p11-kit is there, its test has to run, with the client that was found: the test knows fewer places.
require_p11kit() {
    command -v p11-kit >/dev/null || return 1
    P11_KIT_CLIENT_MODULE=$(p11kit_client)
    [ -n "$P11_KIT_CLIENT_MODULE" ] || return 1
    export P11_KIT_CLIENT_MODULE HSMUX_REQUIRE_P11KIT=1
}

# Where p11-kit's client module is, or nothing.
p11kit_client() {
    local path
    for path in "${P11_KIT_CLIENT_MODULE:-}" \
        /usr/lib/*/pkcs11/p11-kit-client.so \
        /usr/lib64/pkcs11/p11-kit-client.so \
        /usr/lib/pkcs11/p11-kit-client.so; do
        if [ -n "$path" ] && [ -f "$path" ]; then
            echo "$path"
            return
        fi
    done
}

need_toolchain() {
    command -v cargo >/dev/null || stop "cargo is missing: install Rust from https://rustup.rs"
    command -v cc >/dev/null || stop "a C compiler is missing: install the package gcc"
}

# The file name of a shared library on this system.
library_name() {
    case $(uname -s) in
        Darwin) echo "lib$1.dylib" ;;
        *) echo "lib$1.so" ;;
    esac
}
