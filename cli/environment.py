"""What becomes of a container's environment on the laptop. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from cli.errors import CommandError

_PREFIXES = """
    LD_ DYLD_ OPENSSL_ GST_PLUGIN_ BASH_FUNC_ GIT_CONFIG
    PYTHON PIP_ PERL5 GEM_ BUNDLE_ LUA_ ERL_ R_PROFILE R_ENVIRON R_LIBS GUILE_ CORECLR_ COR_PROFILER
    NPM_CONFIG_ npm_config_ CARGO_ RUSTC RUSTDOC RUSTUP_
"""
_NAMES = """
    PATH SHELL ENV BASHOPTS BASH_ENV BASH_LOADABLES_PATH CDPATH FPATH IFS PROMPT_COMMAND PS4 SHELLOPTS ZDOTDIR
    GCONV_PATH GLIBC_TUNABLES LOCPATH
    BROWSER EDITOR VISUAL FCEDIT SUDO_EDITOR PAGER MANPAGER SYSTEMD_PAGER PSQL_PAGER LESSOPEN LESSCLOSE
    EXINIT VIMINIT VIM VIMRUNTIME EMACSLOADPATH
    GIT_ASKPASS GIT_EDITOR GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_PAGER GIT_PROXY_COMMAND GIT_SEQUENCE_EDITOR GIT_SSH
    GIT_SSH_COMMAND GIT_TEMPLATE_DIR HGRCPATH HGEDITOR HGMERGE SVN_SSH SVN_EDITOR CVS_RSH RSYNC_RSH
    SSH_ASKPASS SUDO_ASKPASS
    CLASSPATH JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS ANT_OPTS GRADLE_OPTS MAVEN_OPTS SBT_OPTS
    ASPNETCORE_HOSTINGSTARTUPASSEMBLIES DOTNET_ADDITIONAL_DEPS DOTNET_SHARED_STORE DOTNET_STARTUP_HOOKS
    NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE
    RUBYLIB RUBYOPT RUBYSHELL RUBYGEMS_GEMDEPS JULIA_LOAD_PATH JULIA_DEPOT_PATH
    MONO_PATH MONO_CONFIG MONO_ENV_OPTIONS MONO_PROFILE
    PERLLIB PERL_MB_OPT PERL_MM_OPT PHPRC PHP_INI_SCAN_DIR TCLLIBPATH TCL_LIBRARY
    CC CXX CPP LIBRARY_PATH COMPILER_PATH GCC_EXEC_PREFIX MAKEFILES MAKEFLAGS MFLAGS GNUMAKEFLAGS RUSTFLAGS
    GOENV GOFLAGS GOPROXY GOROOT GOTOOLCHAIN GOTOOLDIR
    GI_TYPELIB_PATH GIO_EXTRA_MODULES GIO_MODULE_DIR GDK_PIXBUF_MODULEDIR GDK_PIXBUF_MODULE_FILE
    GTK_EXE_PREFIX GTK_IM_MODULE_FILE GTK_MODULES GTK_PATH
    QML_IMPORT_PATH QML2_IMPORT_PATH QT_PLUGIN_PATH QT_QPA_PLATFORM_PLUGIN_PATH
    ALSA_CONFIG_PATH LADSPA_PATH LIBGL_DRIVERS_PATH LIBVA_DRIVERS_PATH OCL_ICD_FILENAMES OCL_ICD_VENDORS
    VK_ADD_LAYER_PATH VK_DRIVER_FILES VK_ICD_FILENAMES VK_LAYER_PATH
    KRB5_CONFIG LIBMYSQL_PLUGINS LIBMYSQL_PLUGIN_DIR SASL_PATH PSQLRC PGSYSCONFDIR
    CURL_HOME WGETRC TAR_OPTIONS RIPGREP_CONFIG_PATH FZF_DEFAULT_COMMAND FZF_DEFAULT_OPTS HELM_PLUGINS
    TF_CLI_CONFIG_FILE
"""
"""They make programs of the laptop load or run something else. A container's variables come from whoever may write the
workload, and must not decide that on a laptop."""
_UNSAFE_PREFIXES = tuple(_PREFIXES.split())
_UNSAFE = frozenset(_NAMES.split())

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_unsafe(name: str) -> bool:
    """Whether a variable of that name could make a program of the laptop run something else."""
    return name in _UNSAFE or name.startswith(_UNSAFE_PREFIXES)


def for_handler(
    own: Mapping[str, str], container: Mapping[str, str], *, allow_unsafe: bool
) -> tuple[dict[str, str], list[str]]:
    """(the handler's environment: the caller's own, overlaid by the container's; the names left out)."""
    left_out = sorted(name for name in container if not allow_unsafe and is_unsafe(name))
    usable = {
        name: value
        for name, value in container.items()
        if name not in left_out and name and "=" not in name and "\0" not in name + value
    }
    return {**own, **usable}, left_out


def env_file(variables: Mapping[str, str]) -> str:
    """The variables in the syntax of `docker run --env-file`: KEY=VALUE lines, everything after = taken as it is.

    Raises CommandError for what the syntax cannot hold.
    """
    for name, value in variables.items():
        if "\n" in value or "\r" in value:
            raise CommandError(f"--env-file cannot hold {name}, whose value has several lines; use --env-json instead")
        if not _NAME.fullmatch(name.replace(".", "_").replace("-", "_")):
            raise CommandError(f"--env-file cannot hold a variable named {name!r}; use --env-json instead")
    return "".join(f"{name}={variables[name]}\n" for name in sorted(variables))


def env_json(variables: Mapping[str, str]) -> str:
    """All variables as one JSON object."""
    return json.dumps(dict(sorted(variables.items())), indent=2, ensure_ascii=False) + "\n"
