"""`diffexp completion bash`: the script that completes commands, and after one what Hydra knows of it.

Hydra's own script takes the first word for the program and so cannot see a sub-command; it also takes `=`
out of the shell's COMP_WORDBREAKS for every other program. This one does neither, and completes the last
of `a,b,...` too.
"""

import sys

from diffexp.apps.main import COMMANDS

_HYDRA_COMMANDS = ("train", "sample", "evaluate")
_FLAGS = (
    "--help",
    "--multirun",
    "--cfg",
    "--resolve",
    "--info",
    "--package",
    "--config-dir",
    "--config-name",
)

_BASH = r"""_diffexp_completion() {
    local line=${COMP_LINE:0:COMP_POINT} words word
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    COMPREPLY=()
    if (( ${#words[@]} <= 2 )); then
        COMPREPLY=($(compgen -W "COMMANDS --help --version" -- "$word"))
        [[ ${#COMPREPLY[@]} == 1 ]] && COMPREPLY[0]+=" "
        return
    fi
    case ${words[1]} in
        HYDRA_COMMANDS) ;;
        completion) COMPREPLY=($(compgen -W "bash" -- "$word")); return ;;
        *) compopt +o nospace -o default; return ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "FLAGS" -- "$word"))
        return
    fi
    # Of target=epsilon,x0,s Hydra is asked for target=s.
    local asked=$word before=
    if [[ $word == *=*,* ]]; then
        asked=${word%%=*}=${word##*,}
        before=${word%,*},
    fi
    local others="${words[*]:2:${#words[@]}-3}" found
    found=$(COMP_LINE="diffexp $others $asked" "$1" "${words[1]}" --shell-completion query=bash 2> /dev/null)
    [[ $others == *=*,* ]] && [[ -z $found ]] && \
        found=$(COMP_LINE="diffexp $asked" "$1" "${words[1]}" --shell-completion query=bash 2> /dev/null)
    local candidate cut
    for candidate in $(compgen -W "$found" -- "$asked"); do
        [[ -n $before ]] && candidate=$before${candidate#*=}
        # Readline replaces only what follows the last character of COMP_WORDBREAKS.
        for cut in = : @; do
            [[ $COMP_WORDBREAKS == *$cut* && $word == *$cut* ]] || continue
            candidate=${candidate#"${word%"$cut"*}$cut"}
        done
        COMPREPLY+=("$candidate")
    done
}
complete -o nospace -F _diffexp_completion diffexp
"""


def main(argv: list[str]) -> int:
    """Prints the script, for `eval "$(diffexp completion bash)"`; returns the exit code."""
    if argv == ["bash"]:
        script = _BASH.replace("HYDRA_COMMANDS", "|".join(_HYDRA_COMMANDS))
        print(script.replace("COMMANDS", " ".join(COMMANDS)).replace("FLAGS", " ".join(_FLAGS)), end="")
        return 0
    if argv in (["--help"], ["-h"]):
        print('usage: diffexp completion bash\n\nFor ~/.bashrc: eval "$(diffexp completion bash)"')
        return 0
    print(
        f"diffexp completion: error: {' '.join(argv) or 'no shell'}: there is a script for bash.",
        file=sys.stderr,
    )
    return 2
