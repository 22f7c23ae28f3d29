/* gapless completion bash|zsh: what a shell completes, written from the tables of commands and options.
 *
 *   bash   case "$command:$option" in train:--rule|master:--rule|...) values: asgd nag-asgd ...
 *   zsh    one _arguments a command, with the help of each option
 *
 * Values that a shell would cut at a colon (mlp:64) are left out; a file or folder is completed as such.
 */
#include "cluster/options/options_table.h"
#include "cluster/program/program.h"

#include <stdio.h>
#include <string.h>

/* Whether the shell's own list of files is what completes the value. */
static bool is_file(const struct option_row *row)
{
    return row->argument != NULL && strcmp(row->argument, "FILE") == 0;
}

static bool is_folder(const struct option_row *row)
{
    return row->argument != NULL && strcmp(row->argument, "DIR") == 0;
}

/* Values with commas between them. */
static bool is_list(const struct option_row *row)
{
    return row->kind == KIND_RULES || row->kind == KIND_CHOICES;
}

/* The option, if this command has it and shows it. */
static const struct option_row *row_at(unsigned index, unsigned commands)
{
    const struct option_row *row = &options_table[index];

    return (row->commands & commands) != 0 && !row->hidden ? row : NULL;
}

/* Values of an option behind each other. */
static void values(const struct option_row *row)
{
    const char *value;
    bool first = true;

    for (unsigned i = 0; (value = options_value_at(row, i)) != NULL; i++) {
        if (strpbrk(value, ":/ ") != NULL)
            continue;
        (void)printf("%s%s", first ? "" : " ", value);
        first = false;
    }
}

/* Commands of one word, or the second words of "bench ...". */
static void names(bool second)
{
    bool first = true;

    for (unsigned i = 0; i < options_commands_count; i++) {
        const char *name = options_commands[i].name, *space = strchr(name, ' ');

        if ((space != NULL) != second)
            continue;
        (void)printf("%s%s", first ? "" : " ", second ? space + 1 : name);
        first = false;
    }
}

/* ---- bash ---------------------------------------------------------------- */

/* train:--rule|train:-r|master:--rule|... */
static void bash_pattern(const struct option_row *row)
{
    bool first = true;

    for (unsigned i = 0; i < options_commands_count; i++) {
        const struct option_command_row *command = &options_commands[i];

        if ((row->commands & command->command) == 0)
            continue;
        (void)printf("%s'%s:--%s'", first ? "    " : "|", command->name, row->name);
        if (row->letter != '\0')
            (void)printf("|'%s:-%c'", command->name, row->letter);
        first = false;
    }
}

static void bash_options(void)
{
    (void)printf("    case $command in\n");
    for (unsigned c = 0; c < options_commands_count; c++) {
        if (options_commands[c].command == FOR_NOTHING)
            continue;
        (void)printf("    '%s') options='", options_commands[c].name);
        for (unsigned i = 0; i < options_count; i++)
            if (row_at(i, options_commands[c].command) != NULL)
                (void)printf("--%s ", options_table[i].name);
        (void)printf("' ;;\n");
    }
    (void)printf("    esac\n");
}

static void bash_values(void)
{
    (void)printf("    case $command:$option in\n");
    for (unsigned i = 0; i < options_count; i++) {
        const struct option_row *row = row_at(i, ~0u);

        if (row == NULL || row->kind == KIND_FLAG)
            continue;
        bash_pattern(row);
        if (is_file(row) || is_folder(row)) {
            (void)printf(") _gapless_files -%c ;;\n", is_file(row) ? 'f' : 'd');
            continue;
        }
        (void)printf(") _gapless_%s '", is_list(row) ? "list" : "words");
        values(row);
        (void)printf("' ;;\n");
    }
    (void)printf("    *) return 1 ;;\n    esac\n");
}

/* Commands that are given files or folders without a dash. */
static void bash_operands(void)
{
    (void)printf("    elif [[ ' ");
    for (unsigned i = 0; i < options_commands_count; i++)
        if (strstr(options_commands[i].words, "FILE") != NULL ||
            strstr(options_commands[i].words, "PROGRAM") != NULL ||
            strstr(options_commands[i].words, "DIR") != NULL)
            (void)printf("%s ", options_commands[i].name);
    (void)printf("' == *\" $command \"* ]]; then\n");
}

static void bash(void)
{
    (void)printf(
        "# bash completion of gapless, written by 'gapless completion bash'.\n\n"
        "_gapless_words() {\n"
        "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$word\")\n"
        "}\n"
        "_gapless_list() { # the last of words with commas between them\n"
        "    local words=$1 before=''\n"
        "    [[ $word == *,* ]] && before=${word%%,*},\n"
        "    mapfile -t COMPREPLY < <(compgen -P \"$before\" -W \"$words\" -- "
        "\"${word##*,}\")\n"
        "}\n"
        "_gapless_files() {\n"
        "    compopt -o filenames 2>/dev/null\n"
        "    mapfile -t COMPREPLY < <(compgen \"$1\" -- \"$word\")\n"
        "}\n"
        "_gapless_options() {\n"
        "    local options=''\n");
    bash_options();
    (void)printf("    _gapless_words \"$options\"\n}\n\n"
                 "# The value of $option. False: it takes none.\n"
                 "_gapless_value() {\n");
    bash_values();
    (void)printf("}\n\n"
                 "_gapless() {\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} "
                 "at=$((COMP_CWORD - 1)) first=2 option\n"
                 "    COMPREPLY=()\n"
                 "    if ((COMP_CWORD == 1)); then\n"
                 "        _gapless_words '");
    names(false);
    (void)printf("'\n        return\n    fi\n"
                 "    case $command in\n"
                 "    help) _gapless_words '");
    names(false);
    (void)printf("'; return ;;\n"
                 "    completion) _gapless_words 'bash zsh'; return ;;\n"
                 "    bench)\n"
                 "        if ((COMP_CWORD == 2)); then\n"
                 "            _gapless_words '");
    names(true);
    (void)printf("'\n            return\n        fi\n"
                 "        command=\"bench ${COMP_WORDS[2]}\" first=3 ;;\n"
                 "    esac\n"
                 "    # --rule=dana comes as three words: --rule, =, dana\n"
                 "    if [[ $word == = ]]; then\n"
                 "        word=''\n"
                 "    elif [[ ${COMP_WORDS[at]} == = ]]; then\n"
                 "        at=$((at - 1))\n"
                 "    fi\n"
                 "    option=${COMP_WORDS[at]}\n"
                 "    ((at >= first)) && _gapless_value && return\n"
                 "    if [[ $word == -* ]]; then\n"
                 "        _gapless_options\n");
    bash_operands();
    (void)printf("        _gapless_files -f\n"
                 "    else\n"
                 "        _gapless_options\n"
                 "    fi\n"
                 "}\n"
                 "complete -F _gapless gapless\n");
}

/* ---- zsh ----------------------------------------------------------------- */

/* A text within '[...]' of _arguments. */
static void zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            (void)fputs("'\\'", stdout);
        else if (strchr("[]:\\", *text) != NULL)
            (void)fputc('\\', stdout);
        (void)fputc(*text, stdout);
    }
}

static void zsh_option(const struct option_row *row)
{
    bool takes = row->kind != KIND_FLAG;

    (void)printf("            ");
    if (row->letter != '\0')
        (void)printf("'(-%c --%s)'{-%c%s,--%s%s}", row->letter, row->name, row->letter,
                     takes ? "+" : "", row->name, takes ? "=" : "");
    else
        (void)printf("'--%s%s'", row->name, takes ? "=" : "");
    (void)printf("'[");
    zsh_text(row->help);
    (void)printf("]");
    if (takes) {
        (void)printf(":%s:", row->argument != NULL ? row->argument : "");
        if (is_file(row) || is_folder(row)) {
            (void)printf("_files%s", is_folder(row) ? " -/" : "");
        } else {
            (void)printf(is_list(row) ? "_sequence compadd - " : "(");
            values(row);
            (void)printf(is_list(row) ? "" : ")");
        }
    }
    (void)printf("' \\\n");
}

static void zsh_commands(bool second)
{
    for (unsigned i = 0; i < options_commands_count; i++) {
        const char *name = options_commands[i].name, *space = strchr(name, ' ');

        if ((space != NULL) != second)
            continue;
        (void)printf("            '%s:", second ? space + 1 : name);
        zsh_text(options_commands[i].summary);
        (void)printf("'\n");
    }
}

static void zsh(void)
{
    (void)printf(
        "#compdef gapless\n# zsh completion of gapless, written by 'gapless completion "
        "zsh'.\n\n"
        "_gapless() {\n"
        "    local command=${words[2]}\n"
        "    local -a names\n"
        "    if ((CURRENT == 2)) || [[ $command == help && CURRENT -eq 3 ]]; then\n"
        "        names=(\n");
    zsh_commands(false);
    (void)printf("        )\n        _describe command names\n        return\n    fi\n"
                 "    if [[ $command == bench ]]; then\n"
                 "        if ((CURRENT == 3)); then\n"
                 "            names=(\n");
    zsh_commands(true);
    (void)printf("            )\n            _describe benchmark names\n            "
                 "return\n        fi\n"
                 "        command=\"bench ${words[3]}\"\n"
                 "        shift words\n        ((CURRENT--))\n"
                 "    fi\n"
                 "    shift words\n    ((CURRENT--))\n"
                 "    case $command in\n");
    for (unsigned c = 0; c < options_commands_count; c++) {
        const struct option_command_row *command = &options_commands[c];

        if (command->command == FOR_NOTHING)
            continue;
        (void)printf("    '%s')\n        _arguments -s \\\n", command->name);
        for (unsigned i = 0; i < options_count; i++)
            if (row_at(i, command->command) != NULL)
                zsh_option(&options_table[i]);
        (void)printf("            '*:operand:_files'\n        ;;\n");
    }
    (void)printf(
        "    completion) _values shell bash zsh ;;\n    esac\n}\n\n_gapless \"$@\"\n");
}

int cmd_completion(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        char help[] = "help";

        return cmd_help(2, (char *[]){help, argv[0], NULL});
    }
    if (argc == 2 && strcmp(argv[1], "bash") == 0) {
        bash();
    } else if (argc == 2 && strcmp(argv[1], "zsh") == 0) {
        zsh();
    } else {
        report_failure(
            "completion",
            "say for which shell: gapless completion bash, or gapless completion zsh");
        return EXIT_MISUSE;
    }
    return EXIT_DONE;
}
