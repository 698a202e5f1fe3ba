#include "syncd/manual.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "conf/keys.h"
#include "syncd/base/buf.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"

#define COLUMNS 76

/* ---- mdoc ---- */

/* Where a word ends; what stands in backquotes is one word. */
static size_t word_length(const char *text)
{
    const char *quote = *text == '`' ? strchr(text + 1, '`') : NULL;
    return (quote ? (size_t)(quote - text) : 0) + strcspn(text + (quote ? quote - text : 0), " ");
}

static void put_word(struct buf *b, const char *word, size_t len)
{
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (word[i] == '\\')
            buf_put_str(b, "\\e");
        else if (word[i] == '-')
            buf_put_str(b, "\\-");
        else if (word[i] == '~')
            buf_put_str(b, "\\(ti");
        else if (word[i] == '`')
            buf_put_str(b, (quoted = !quoted) ? "\\(lq" : "\\(rq");
        else
            buf_put_u8(b, (uint8_t)word[i]);
    }
}

/* Text word by word: each sentence begins a line, as mdoc wants it. */
static void put_text(struct buf *b, const char *text)
{
    OWN_BUF struct buf word = BUF_INIT; /* as mdoc writes it, which can be longer */
    size_t at = 0;
    bool ended = false;
    for (text += strspn(text, " \n"); *text; text += strspn(text, " \n")) {
        size_t len = word_length(text);
        buf_reset(&word);
        put_word(&word, text, len);
        if (at && (ended || at + 1 + word.len > COLUMNS)) {
            buf_put_u8(b, '\n');
            at = 0;
        } else if (at) {
            buf_put_u8(b, ' ');
        }
        if (at == 0 && (*text == '.' || *text == '\''))
            buf_put_str(b, "\\&");
        buf_put(b, word.data, word.len);
        at += 1 + word.len;
        ended = len && strchr(".?!", text[len - 1]) != NULL;
        text += len;
    }
    buf_put_u8(b, '\n');
    b->bad |= word.bad;
}

static void put_paragraphs(struct buf *b, const char *text)
{
    for (bool first = true; *text; first = false) {
        const char *end = strstr(text, "\n\n");
        size_t len = end ? (size_t)(end - text) : strlen(text);
        OWN_MEM char *paragraph = strndup(text, len);
        if (!first)
            buf_put_str(b, ".Pp\n");
        put_text(b, paragraph ? paragraph : "");
        text += end ? len + 2 : len;
    }
}

static void put_option(struct buf *b, const struct command_option *o)
{
    buf_put_str(b, ".It ");
    if (o->letter)
        buf_printf(b, "Fl %c , ", o->letter);
    buf_printf(b, "Fl \\-%s", o->name);
    if (o->kind == OPTION_VALUE_OPTIONAL)
        buf_printf(b, " Ns Op = Ns Ar %s", o->argument);
    else if (o->kind != OPTION_FLAG)
        buf_printf(b, " Ar %s", o->argument);
    buf_put_u8(b, '\n');
    put_text(b, o->help);
}

static void put_options(struct buf *b, const struct command_option *options)
{
    if (!options || !options->name)
        return;
    buf_put_str(b, ".Bl -tag -width Ds\n");
    for (; options->name; options++)
        put_option(b, options);
    buf_put_str(b, ".El\n");
}

static void put_examples(struct buf *b, const char *examples)
{
    if (!*examples)
        return;
    buf_put_str(b, ".Pp\n.Bd -literal -compact\n");
    for (const char *p = examples; *p; p++) {
        if (*p == '\\')
            buf_put_str(b, "\\e");
        else if (*p == '-')
            buf_put_str(b, "\\-");
        else if (*p == '~')
            buf_put_str(b, "\\(ti");
        else
            buf_put_u8(b, (uint8_t)*p);
    }
    buf_put_str(b, ".Ed\n");
}

static void put_commands(struct buf *b, const struct command *table)
{
    for (; table->name; table++) {
        if (!table->run)
            continue;
        buf_printf(b, ".Ss %s\n.Bd -literal -compact -offset indent\nsyncd %s%s%s\n.Ed\n.Pp\n",
                   table->name, table->name, *table->arguments ? " " : "", table->arguments);
        put_text(b, table->summary);
        buf_put_str(b, ".Pp\n");
        put_paragraphs(b, table->details);
        put_options(b, table->options);
        put_examples(b, table->examples);
    }
}

static void put_sentence(struct buf *b, const char *before, const char *text)
{
    OWN_BUF struct buf one = BUF_INIT;
    buf_printf(&one, "%s%s.", before, text);
    const char *whole = buf_cstr(&one);
    OWN_MEM char *copy = whole ? strdup(whole) : NULL;
    if (copy && !*before && copy[1] != '_') /* a key's own name stays as it is */
        *copy = (char)toupper((unsigned char)*copy);
    put_text(b, copy ? copy : "");
}

static void put_key(struct buf *b, const struct conf_key *k)
{
    buf_printf(b, ".It Ic %s\n", k->name);
    put_sentence(b, "", k->explanation);
    put_sentence(b, "Value: ", conf_type_expected(k->type));
    if (*k->default_text == '(')
        put_sentence(b, "Default ", k->default_text);
    else if (*k->default_text)
        put_sentence(b, "Default: ", k->default_text);
}

static void put_keys(struct buf *b, const char *section, size_t len)
{
    enum conf_section wanted = CONF_SECTION_COUNT;
    for (int i = 0; i < CONF_SECTION_COUNT; i++) {
        const char *word = *conf_section_word((enum conf_section)i)
                               ? conf_section_word((enum conf_section)i)
                               : "global";
        if (strlen(word) == len && strncmp(word, section, len) == 0)
            wanted = (enum conf_section)i;
    }
    buf_put_str(b, ".Bl -tag -width Ds\n");
    for (size_t i = 0; i < CONF_KEY_COUNT; i++)
        if (conf_keys[i].section == wanted)
            put_key(b, &conf_keys[i]);
    buf_put_str(b, ".El\n");
}

static bool is_place(const char *line, size_t len, const char *name)
{
    return strlen(name) == len && strncmp(line, name, len) == 0;
}

void manual_page(const char *template_text, const struct command *table, struct buf *ret)
{
    static const char keys[] = "@KEYS ";
    for (const char *line = template_text; *line;) {
        size_t len = strcspn(line, "\n");
        if (is_place(line, len, "@COMMANDS@"))
            put_commands(ret, table);
        else if (is_place(line, len, "@OPTIONS@"))
            put_options(ret, global_options);
        else if (len > strlen(keys) && strncmp(line, keys, strlen(keys)) == 0)
            put_keys(ret, line + strlen(keys), len - strlen(keys) - 1);
        else
            buf_printf(ret, "%.*s\n", (int)len, line);
        line += len + (line[len] == '\n');
    }
}

/* ---- bash ---- */

static void put_option_words(struct buf *b, const struct command_option *o)
{
    for (; o && o->name; o++) {
        buf_printf(b, " --%s", o->name);
        if (o->letter)
            buf_printf(b, " -%c", o->letter);
    }
}

static bool takes_value(const struct command_option *o)
{
    return o->kind == OPTION_VALUE || o->kind == OPTION_VALUES;
}

/* Which options are followed by a word, and of those, by the name of what. */
static void put_values(struct buf *b, const struct command_option *o, const char *kind, bool *first)
{
    for (; o && o->name; o++) {
        OWN_BUF struct buf word = BUF_INIT;
        bool is_dir = takes_value(o) && strcmp(o->argument, "DIR") == 0;
        bool is_file = takes_value(o) && strstr(o->argument, "FILE") != NULL;
        const char *is = is_dir ? "dir" : is_file ? "file" : takes_value(o) ? "word" : "";
        buf_printf(&word, "--%s", o->name);
        const char *text = buf_cstr(&word);
        if (strcmp(is, kind) != 0 || !text || strstr(buf_cstr(b), text))
            continue;
        buf_printf(b, "%s%s", *first ? "" : "|", text);
        if (o->letter)
            buf_printf(b, "|-%c", o->letter);
        *first = false;
    }
}

static void put_value_case(struct buf *b, const struct command *table, const char *kind,
                           const char *then)
{
    OWN_BUF struct buf words = BUF_INIT;
    bool first = true;
    buf_put_str(&words, "");
    buf_put_u8(&words, ' '); /* so that there is a text to look in */
    put_values(&words, global_options, kind, &first);
    for (; table->name; table++)
        if (table->run)
            put_values(&words, table->options, kind, &first);
    const char *text = buf_cstr(&words);
    if (!first && text)
        buf_printf(b, "    %s)\n        %s\n        return\n        ;;\n", text + 1, then);
}

static bool takes_source(const struct command *c)
{
    return strstr(c->arguments, "SOURCE") != NULL;
}

void manual_completion(const struct command *table, struct buf *b)
{
    buf_put_str(b, "# bash completion for syncd; made from its table of commands\n"
                   "_syncd_sources() {\n"
                   "    sed -n 's/^[[:space:]]*source[[:space:]]*\"\\([^\"]*\\)\".*/\\1/p' "
                   "\"$1\" 2>/dev/null\n"
                   "}\n\n"
                   "_syncd() {\n"
                   "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
                   "    local conf=${SYNCD_CONFIG:-/etc/syncd/syncd.conf} command='' i\n"
                   "    local words='' sources=''\n"
                   "    COMPREPLY=()\n"
                   "    case $prev in\n");
    put_value_case(b, table, "dir", "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")");
    put_value_case(b, table, "file", "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")");
    put_value_case(b, table, "word", ":");
    buf_put_str(b, "    esac\n"
                   "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                   "        case ${COMP_WORDS[i]} in\n"
                   "        -c | --config) conf=${COMP_WORDS[++i]} ;;\n"
                   "        -*) ;;\n"
                   "        *)\n"
                   "            command=${COMP_WORDS[i]}\n"
                   "            break\n"
                   "            ;;\n"
                   "        esac\n"
                   "    done\n"
                   "    case $command in\n"
                   "    '') words='");
    for (const struct command *c = table; c->name; c++)
        if (c->run)
            buf_printf(b, "%s%s", c == table ? "" : " ", c->name);
    buf_put_str(b, "' ;;\n");
    for (const struct command *c = table; c->name; c++) {
        if (!c->run)
            continue;
        buf_printf(b, "    %s)%s words='", c->name, takes_source(c) ? " sources=yes" : "");
        if (takes_source(c)) {
            b->len -= strlen(" words='");
            buf_put_str(b, "; words='");
        }
        put_option_words(b, c->options);
        buf_put_str(b, "' ;;\n");
    }
    buf_put_str(b, "    esac\n    if [[ $cur == -* ]]; then\n        words+='");
    put_option_words(b, global_options);
    buf_put_str(b, "'\n    elif [[ $sources ]]; then\n"
                   "        words=$(_syncd_sources \"$conf\")\n"
                   "    elif [[ $command ]]; then\n"
                   "        words=''\n"
                   "    fi\n"
                   "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                   "}\n"
                   "complete -o default -F _syncd syncd\n");
}
