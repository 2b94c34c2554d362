#include "libformat/text/chat.h"

#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/text/python_json.h"
#include "libformat/text/utf8.h"

/* ---- pieces ---- */

static int add(struct sf_chat *out, const char *text, struct sf_err *err)
{
    return sf_text_add_string(&out->text, text, err);
}

/* What Python's str.strip takes away. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static int add_trimmed(struct sf_chat *out, const char *text, struct sf_err *err)
{
    const unsigned char *p = (const unsigned char *)text, *first = NULL, *end = p;
    while (*p) {
        const unsigned char *at = p;
        if (is_space(sf_utf8_next(&p)))
            continue;
        first = first ? first : at;
        end = p;
    }
    return first ? sf_text_add(&out->text, (const char *)first, (uint64_t)(end - first), err)
                 : SF_OK;
}

static int add_header(struct sf_chat *out, const char *role, struct sf_err *err)
{
    int code = add(out, "<|header_start|>", err);
    if (!code)
        code = add(out, role, err);
    return code ? code : add(out, "<|header_end|>\n\n", err);
}

static int add_span(struct sf_chat *out, uint64_t start, struct sf_err *err)
{
    void *span = out->span;
    int code = sf_grow(&span, &out->capacity, out->spans, out->spans + 1, sizeof *out->span,
                       "a chat", err);
    out->span = span;
    if (code)
        return code;
    out->span[out->spans++] = (struct sf_chat_span){start, out->text.bytes};
    return SF_OK;
}

void sf_chat_free(struct sf_chat *chat)
{
    sf_text_free(&chat->text);
    sf_free(chat->span);
    *chat = (struct sf_chat){0};
}

/* ---- messages ---- */

struct message {
    const char *role;
    const struct sf_json *content, *calls; /* NULL: not there */
};

static const struct {
    const char *name, *role;
} roles[] = {{"system", "system"},
             {"user", "user"},
             {"assistant", "assistant"},
             {"tool", "tool"},
             {"ipython", "ipython"}};
static const struct {
    const char *name, *role;
} speakers[] = {{"human", "user"}, {"gpt", "assistant"}};

static int read_role(const char **out, const char *name, enum sf_chat_keys keys, struct sf_err *err)
{
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(roles[i].name, name) == 0) {
            *out = roles[i].role;
            return SF_OK;
        }
    }
    for (size_t i = 0; keys == SF_CHAT_FROM_VALUE && i < sizeof speakers / sizeof speakers[0];
         i++) {
        if (strcmp(speakers[i].name, name) == 0) {
            *out = speakers[i].role;
            return SF_OK;
        }
    }
    return sf_fail(err, SF_EFORMAT,
                   "\"%.40s\" is no %s; %ssystem, user, assistant, tool and ipython are", name,
                   keys == SF_CHAT_FROM_VALUE ? "speaker" : "role",
                   keys == SF_CHAT_FROM_VALUE ? "human, gpt, " : "");
}

/* A key that is null counts as not there. */
static const struct sf_json *member(const struct sf_json *object, const char *key)
{
    const struct sf_json *value = sf_json_get(object, key);
    return value && sf_json_type(value) == SF_JSON_NULL ? NULL : value;
}

static int read_message(struct message *out, const struct sf_json *value, enum sf_chat_keys keys,
                        struct sf_err *err)
{
    bool from = keys == SF_CHAT_FROM_VALUE;
    const char *role_key = from ? "from" : "role", *content_key = from ? "value" : "content", *name;
    if (sf_json_type(value) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "it is %s, not an object",
                       sf_json_type_name(sf_json_type(value)));
    int code = sf_json_check_unique(value, err);
    const struct sf_json *role = sf_json_get(value, role_key);
    if (!code && !role)
        return sf_fail(err, SF_EFORMAT, "it has no \"%s\"", role_key);
    if (!code)
        code = sf_json_as_string(&name, role, role_key, err);
    if (!code)
        code = read_role(&out->role, name, keys, err);
    out->content = member(value, content_key);
    out->calls = from ? NULL : member(value, "tool_calls");
    if (!code && !out->content && !out->calls)
        code = sf_fail(err, SF_EFORMAT, "it has no \"%s\"", content_key);
    return code;
}

/* ---- content ---- */

static int refuse_part(const char *type, struct sf_err *err)
{
    if (strncmp(type, "image", 5) == 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "content of type \"%.40s\": images are not trained on here", type);
    return sf_fail(err, SF_EUNSUPPORTED, "content of type \"%.40s\"; only text is taken", type);
}

static int read_part(const char **text, const struct sf_json *part, struct sf_err *err)
{
    const char *type;
    const struct sf_json *value = sf_json_get(part, "type");
    if (!value)
        return sf_fail(err, SF_EFORMAT,
                       "a part of its content is no {\"type\": \"text\", \"text\": ...}");
    int code = sf_json_as_string(&type, value, "type", err);
    if (!code && strcmp(type, "text") != 0)
        return refuse_part(type, err);
    if (!code && !sf_json_get(part, "text"))
        return sf_fail(err, SF_EFORMAT, "a part of its content has no \"text\"");
    return code ? code : sf_json_as_string(text, sf_json_get(part, "text"), "text", err);
}

static int add_content(struct sf_chat *out, const struct sf_json *content, struct sf_err *err)
{
    const char *text;
    int code = SF_OK;
    if (!content)
        return SF_OK;
    if (sf_json_type(content) == SF_JSON_STRING) {
        code = sf_json_as_string(&text, content, "content", err);
        return code ? code : add(out, text, err);
    }
    if (sf_json_type(content) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "its content is %s, neither a string nor a list",
                       sf_json_type_name(sf_json_type(content)));
    for (const struct sf_json *part = sf_json_first(content); !code && part;
         part = sf_json_next(part)) {
        code = read_part(&text, part, err);
        if (!code)
            code = add(out, text, err);
    }
    return code;
}

/* Where a template trims it takes one string: of a list, the first text alone. */
static int add_one_trimmed(struct sf_chat *out, const struct sf_json *content, bool lists,
                           struct sf_err *err)
{
    const char *text = "";
    int code;
    if (content && lists && sf_json_type(content) == SF_JSON_ARRAY) {
        if (sf_json_count(content) != 1)
            return sf_fail(
                err, SF_EUNSUPPORTED,
                "its content has %lld parts, of which the template takes the first alone",
                (long long)sf_json_count(content));
        code = read_part(&text, sf_json_first(content), err);
    } else if (content && sf_json_type(content) == SF_JSON_STRING) {
        code = sf_json_as_string(&text, content, "content", err);
    } else {
        return sf_fail(err, SF_EUNSUPPORTED, "its content is %s; the template takes a string here",
                       content ? sf_json_type_name(sf_json_type(content)) : "missing");
    }
    return code ? code : add_trimmed(out, text, err);
}

/* ---- Llama 4 ---- */

static int add_call(struct sf_chat *out, const struct sf_json *call, struct sf_err *err)
{
    const struct sf_json *function = sf_json_get(call, "function");
    const struct sf_json *name = sf_json_get(function, "name");
    const struct sf_json *arguments = sf_json_get(function, "arguments");
    const char *text;
    if (!name || !arguments)
        return sf_fail(err, SF_EFORMAT,
                       "a call is no {\"function\": {\"name\": ..., "
                       "\"arguments\": ...}}");
    int code = sf_json_as_string(&text, name, "name", err);
    if (!code)
        code = add(out, "{\"name\": \"", err);
    if (!code)
        code = add(out, text, err);
    if (!code)
        code = add(out, "\", \"parameters\": ", err);
    if (!code)
        code = sf_python_json(&out->text, arguments, 0, err);
    return code ? code : add(out, "}", err);
}

static int add_calls(struct sf_chat *out, const struct message *m, struct sf_err *err)
{
    if (sf_json_type(m->calls) != SF_JSON_ARRAY || sf_json_count(m->calls) == 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "its tool_calls are no list with a call; the template would leave the "
                       "message out");
    if (strcmp(m->role, "assistant") != 0)
        return sf_fail(err, SF_EFORMAT, "the role %s has tool_calls", m->role);
    int code = add(out, "<|python_start|>", err);
    if (!code)
        code = add_content(out, m->content, err);
    if (!code)
        code = add(out, "<|python_end|>", err);
    for (const struct sf_json *c = sf_json_first(m->calls); !code && c; c = sf_json_next(c))
        code = add_call(out, c, err);
    return code;
}

static int add_result(struct sf_chat *out, const struct message *m, struct sf_err *err)
{
    if (!m->content)
        return sf_fail(err, SF_EFORMAT, "it has no content");
    /* A number or a truth value is printed as Python prints it. */
    enum sf_json_type type = sf_json_type(m->content);
    if (type == SF_JSON_NUMBER || type == SF_JSON_BOOL)
        return sf_fail(err, SF_EUNSUPPORTED, "its content is %s; a string, list or object is taken",
                       sf_json_type_name(type));
    return sf_python_json(&out->text, m->content, 0, err);
}

static int add_message(struct sf_chat *out, const struct message *m, struct sf_err *err)
{
    bool result = strcmp(m->role, "tool") == 0 || strcmp(m->role, "ipython") == 0;
    int code = add_header(out, result && !m->calls ? "ipython" : m->role, err);
    uint64_t start = out->text.bytes;
    if (!code && m->calls)
        code = add_calls(out, m, err);
    else if (!code)
        code = result ? add_result(out, m, err) : add_content(out, m->content, err);
    if (!code)
        code = add(out, "<|eot|>", err);
    return code || strcmp(m->role, "assistant") != 0 ? code : add_span(out, start, err);
}

static int add_tools(struct sf_chat *out, const struct sf_json *tools, struct sf_err *err)
{
    int code = add(out,
                   "Given the following functions, please respond with a JSON for a function call "
                   "with its proper arguments that best answers the given prompt.\n\n"
                   "Respond in the format {\"name\": function name, \"parameters\": dictionary of "
                   "argument name and its value}.Do not use variables.\n\n",
                   err);
    for (const struct sf_json *t = sf_json_first(tools); !code && t; t = sf_json_next(t)) {
        code = sf_python_json(&out->text, t, 4, err);
        if (!code)
            code = add(out, "\n\n", err);
    }
    return code;
}

/* Message `number` of a conversation with tools; the first behind the system's becomes a user's. */
static int add_llama4(struct sf_chat *out, const struct message *m, int64_t number, bool *tools_due,
                      const struct sf_json *tools, struct sf_err *err)
{
    bool system = number == 0 && strcmp(m->role, "system") == 0;
    if (!system && !*tools_due)
        return add_message(out, m, err);
    if (!system && strcmp(m->role, "user") != 0)
        return sf_fail(err, SF_EFORMAT,
                       "tools go into the first message behind the system's, which "
                       "is no user's");
    int code = add_header(out, m->role, err);
    if (!code && system && tools)
        code = add(out, "Environment: ipython\n", err);
    if (!code && !system)
        code = add_tools(out, tools, err);
    if (!code)
        code = add_one_trimmed(out, m->content, system, err);
    if (!system)
        *tools_due = false;
    return code ? code : add(out, "<|eot|>", err);
}

/* ---- the short format ---- */

static int add_short(struct sf_chat *out, const struct message *m, struct sf_err *err)
{
    if (m->calls)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "it has tool_calls, which this model's template does "
                       "not know");
    int code = add_header(out, m->role, err);
    uint64_t start = out->text.bytes;
    if (!code)
        code = add_one_trimmed(out, m->content, false, err);
    if (!code)
        code = add(out, "<|eot|>", err);
    return code || strcmp(m->role, "assistant") != 0 ? code : add_span(out, start, err);
}

/* ---- the whole ---- */

static int begin(struct sf_chat *out, const struct sf_chat_options *o, struct sf_err *err)
{
    out->text.bytes = 0;
    out->spans = 0;
    if (o->format == SF_CHAT_NONE)
        return sf_fail(err, SF_EUNSUPPORTED, "a conversation, but the model has no chat format");
    if (o->tools && sf_json_type(o->tools) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "tools are %s, not a list",
                       sf_json_type_name(sf_json_type(o->tools)));
    if (o->tools && o->format != SF_CHAT_LLAMA4)
        return sf_fail(err, SF_EUNSUPPORTED, "tools, which this model's template does not know");
    return add(out, "<|begin_of_text|>", err);
}

static int end(struct sf_chat *out, const struct sf_chat_options *o, struct sf_err *err)
{
    return o->generation_prompt ? add_header(out, "assistant", err) : SF_OK;
}

struct rendering {
    const struct sf_chat_options *options;
    bool tools_due;
    int64_t number; /* of the message in hand */
};

static int add_messages(struct sf_chat *out, struct rendering *r, const struct sf_json *messages,
                        struct sf_err *err)
{
    const struct sf_chat_options *o = r->options;
    if (sf_json_type(messages) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "a conversation is %s, not a list of messages",
                       sf_json_type_name(sf_json_type(messages)));
    if (sf_json_count(messages) == 0)
        return sf_fail(err, SF_EFORMAT, "a conversation without messages");
    for (const struct sf_json *v = sf_json_first(messages); v; v = sf_json_next(v), r->number++) {
        struct message m = {0};
        int code = read_message(&m, v, o->keys, err);
        if (!code && o->format == SF_CHAT_LLAMA4)
            code = add_llama4(out, &m, r->number, &r->tools_due, o->tools, err);
        else if (!code)
            code = add_short(out, &m, err);
        if (code)
            return sf_err_prefix(err, "message %lld", (long long)r->number);
    }
    return SF_OK;
}

int sf_chat_render(struct sf_chat *out, const struct sf_json *messages,
                   const struct sf_chat_options *options, struct sf_err *err)
{
    struct rendering r = {.options = options, .tools_due = options->tools != NULL};
    int code = begin(out, options, err);
    if (!code)
        code = add_messages(out, &r, messages, err);
    if (!code && options->more)
        code = add_messages(out, &r, options->more, err);
    if (!code && r.tools_due)
        code = sf_fail(err, SF_EFORMAT, "tools, but no user's message to put them into");
    return code ? code : end(out, options, err);
}

static int add_text_message(struct sf_chat *out, const char *role, const char *text,
                            enum sf_chat_format format, struct sf_err *err)
{
    int code = add_header(out, role, err);
    uint64_t start = out->text.bytes;
    if (!code)
        code = format == SF_CHAT_LLAMA4 ? add(out, text, err) : add_trimmed(out, text, err);
    if (!code)
        code = add(out, "<|eot|>", err);
    return code || strcmp(role, "assistant") != 0 ? code : add_span(out, start, err);
}

int sf_chat_render_pair(struct sf_chat *out, const char *user, const char *assistant,
                        const struct sf_chat_options *options, struct sf_err *err)
{
    int code = begin(out, options, err);
    if (!code)
        code = add_text_message(out, "user", user, options->format, err);
    if (!code && assistant)
        code = add_text_message(out, "assistant", assistant, options->format, err);
    return code ? code : end(out, options, err);
}
