# Completion of diffexp in bash: eval "$(diffexp completion bash)"
#
# Hydra's own script takes the first word for the program and so cannot see a sub-command; it also takes = out of
# COMP_WORDBREAKS for every other program. This one does neither, and completes the last of a,b,... too.

_diffexp_completion() {
    local line=${COMP_LINE:0:COMP_POINT} words word before last= found
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    COMPREPLY=()
    if (( ${#words[@]} <= 2 )); then
        COMPREPLY=($(compgen -W "explain check plan train status sample evaluate report completion --help --version" -- "$word"))
        [[ ${#COMPREPLY[@]} == 1 ]] && COMPREPLY[0]+=" "
        return
    fi
    before=("${words[@]:2:${#words[@]}-3}")
    (( ${#before[@]} )) && last=${before[-1]}
    case ${words[1]} in
        explain | check | plan | train | sample | evaluate) _diffexp_hydra "$1" "${words[1]}" ;;
        report) _diffexp_study "--root --baseline --select --higher --lower --figure --format --output --help" ;;
        status) _diffexp_study "--root --all --json --watch --interval --help" ;;
        completion) COMPREPLY=($(compgen -W "bash" -- "$word")) ;;
    esac
}

# The functions below see word, the last of the line, and those between it and the command: before, their last.

_diffexp_hydra() {
    local candidate cut first= asked=$word query=() others=() each
    if [[ $last == --config-dir || $last == --config-path || $word == --config-dir=* ]]; then
        _diffexp_paths -d "${word#--config-dir=}"
        [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/${word%"${word#--config-dir=}"}}")
        return
    fi
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "--help --multirun --cfg --resolve --info --package --config-dir --config-name" -- "$word"))
        [[ $2 == plan && --json == "$word"* ]] && COMPREPLY+=(--json)
        return
    fi
    case $word in
        run=* | cache=* | root=*) found=$(compgen -d -S / -- "${word#*=}") ;;
        out=* | data.path=*) found=$(_diffexp_files "${word#*=}") ;;
        *) _diffexp_ask "$1" "$2" ;;
    esac
    [[ $word == run=* || $word == cache=* || $word == root=* || $word == out=* || $word == data.path=* ]] && \
        found=$(while IFS= read -r each; do [[ $each ]] && echo "${word%%=*}=$each"; done <<< "$found")
    while IFS= read -r candidate; do
        [[ $candidate == "$asked"* && $candidate ]] || continue
        [[ $candidate == hydra* && -z $asked ]] && continue  # Hydra's own settings, unless the word begins so
        [[ -n $first ]] && candidate=$first${candidate#*=}
        # Readline replaces only what follows the last character of COMP_WORDBREAKS.
        for cut in = : @; do
            [[ $COMP_WORDBREAKS == *$cut* && $word == *$cut* ]] || continue
            candidate=${candidate#"${word%"$cut"*}$cut"}
        done
        COMPREPLY+=("$candidate")
    done <<< "$found"
}

# Queries Hydra. Flags that name folders with choices, and the run, belong to the query's own command line: Hydra
# reads the other words as overrides. Of target=epsilon,x0,s the query is target=s.
_diffexp_ask() {
    local sweep= take=
    for each in "${before[@]}"; do
        if [[ $take ]]; then query+=("$each"); take=; continue; fi
        case $each in
            -m | --multirun) sweep=--multirun ;;
            --config-dir | --config-path | --config-name) query+=("$each"); take=1 ;;
            --config-dir=* | --config-path=* | --config-name=* | run=*) query+=("$each") ;;
            -* | out=*) ;;
            *) others+=("$each") ;;
        esac
    done
    if [[ $word == *=*,* ]]; then
        asked=${word%%=*}=${word##*,}
        first=${word%,*},
    fi
    local key=$asked
    [[ $asked == objective.space=* ]] && key=target=${asked#*=}
    query=("$1" "$2" --shell-completion "${query[@]}" query=bash)
    found=$(COMP_LINE="diffexp $sweep ${others[*]} $key" "${query[@]}" 2> /dev/null)
    [[ -z $found && ${#others[@]} != 0 ]] && found=$(COMP_LINE="diffexp $key" "${query[@]}" 2> /dev/null)
    found=${found// /$'\n'}
    [[ $asked == objective.space=* ]] && found=${found//target=/objective.space=}$'\nobjective.space=native'
}

_diffexp_study() {
    local root=runs each index
    for index in "${!before[@]}"; do
        case ${before[index]} in
            --root) root=${before[index + 1]-$root} ;;
            --root=*) root=${before[index]#--root=} ;;
        esac
    done
    case $last in
        --root) _diffexp_paths -d "$word"; return ;;
        --output) _diffexp_paths -f "$word"; return ;;
        --format) COMPREPLY=($(compgen -W "table html csv markdown json" -- "$word")); return ;;
        --baseline | --select | --higher | --lower | --interval) return ;;
    esac
    compopt +o nospace 2> /dev/null
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$1" -- "$word"))
    elif [[ $word == */* ]]; then
        _diffexp_paths -d "$word"
    else
        while IFS= read -r each; do
            [[ $each ]] && COMPREPLY+=("${each#"$root/"}")
        done < <(compgen -d -- "$root/$word")
    fi
}

_diffexp_paths() {
    compopt -o filenames 2> /dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$2")
}

_diffexp_files() {
    local each
    compgen -f -- "$1" | while IFS= read -r each; do [[ -d $each ]] && echo "$each/" || echo "$each"; done
}

complete -o nospace -F _diffexp_completion diffexp
