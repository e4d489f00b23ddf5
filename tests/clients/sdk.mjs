// One round trip of a tool through an official JavaScript client: node sdk.mjs CLIENT BASE KEY MODEL RESULT
// Prints one line of JSON: what the tool was called with, and the text at the end. Everything is streamed.

const [client, base, apiKey, model, result] = process.argv.slice(2);
const question = "What does the weather tool say about Oslo?";
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const description = "The weather in a city.";
const calls = [];
const weather = (input) => {
  calls.push(input);
  return result;
};

const clients = {
  "openai-chat": async () => {
    const { default: OpenAI } = await import("openai");
    const openai = new OpenAI({ baseURL: `${base}/v1`, apiKey, maxRetries: 0 });
    const tools = [{ type: "function", function: { name: "weather", description, parameters: schema } }];
    const messages = [{ role: "user", content: question }];
    for (;;) {
      const answer = await openai.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
      const { message } = answer.choices[0];
      if (!message.tool_calls?.length) return message.content;
      messages.push(message);
      for (const call of message.tool_calls) {
        messages.push({ role: "tool", tool_call_id: call.id, content: weather(JSON.parse(call.function.arguments)) });
      }
    }
  },
  "openai-responses": async () => {
    const { default: OpenAI } = await import("openai");
    const openai = new OpenAI({ baseURL: `${base}/v1`, apiKey, maxRetries: 0 });
    const tools = [{ type: "function", name: "weather", description, parameters: schema, strict: true }];
    const input = [{ role: "user", content: question }];
    for (;;) {
      const answer = await openai.responses.stream({ model, input, tools, store: false }).finalResponse();
      const wanted = answer.output.filter((item) => item.type === "function_call");
      if (!wanted.length) return answer.output_text;
      input.push(...answer.output);
      for (const call of wanted) {
        input.push({ type: "function_call_output", call_id: call.call_id, output: weather(JSON.parse(call.arguments)) });
      }
    }
  },
  anthropic: async () => {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const anthropic = new Anthropic({ baseURL: base, apiKey, maxRetries: 0 });
    const tools = [{ name: "weather", description, input_schema: schema }];
    const messages = [{ role: "user", content: question }];
    for (;;) {
      const answer = await anthropic.messages.stream({ model, max_tokens: 500, messages, tools }).finalMessage();
      const wanted = answer.content.filter((block) => block.type === "tool_use");
      if (!wanted.length) return answer.content.map((block) => block.text ?? "").join("");
      messages.push({ role: "assistant", content: answer.content });
      const content = wanted.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: weather(call.input) }));
      messages.push({ role: "user", content });
    }
  },
  genai: async () => {
    const { GoogleGenAI } = await import("@google/genai");
    const genai = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: base } });
    const config = { tools: [{ functionDeclarations: [{ name: "weather", description, parametersJsonSchema: schema }] }] };
    const contents = [{ role: "user", parts: [{ text: question }] }];
    for (;;) {
      const parts = [];
      for await (const piece of await genai.models.generateContentStream({ model, contents, config })) {
        parts.push(...(piece.candidates?.[0]?.content?.parts ?? []));
      }
      const wanted = parts.filter((part) => part.functionCall);
      if (!wanted.length) return parts.map((part) => part.text ?? "").join("");
      contents.push({ role: "model", parts });
      const answers = wanted.map(({ functionCall: { id, name, args } }) => ({
        functionResponse: { id, name, response: { output: weather(args) } },
      }));
      contents.push({ role: "user", parts: answers });
    }
  },
  "ai-chat": () => ai("@ai-sdk/openai-compatible", ({ createOpenAICompatible }) =>
    createOpenAICompatible({ name: "relay", baseURL: `${base}/v1`, apiKey, includeUsage: true })(model)),
  "ai-responses": () => ai("@ai-sdk/openai", ({ createOpenAI }) => createOpenAI({ baseURL: `${base}/v1`, apiKey })(model)),
  "ai-anthropic": () =>
    ai("@ai-sdk/anthropic", ({ createAnthropic }) => createAnthropic({ baseURL: `${base}/v1`, apiKey })(model)),
  "ai-google": () =>
    ai("@ai-sdk/google", ({ createGoogleGenerativeAI }) =>
      createGoogleGenerativeAI({ baseURL: `${base}/v1beta`, apiKey })(model)),
};

async function ai(provider, make) {
  const { streamText, tool, stepCountIs } = await import("ai");
  const { z } = await import("zod");
  const tools = {
    weather: tool({ description, inputSchema: z.object({ city: z.string() }), execute: async (input) => weather(input) }),
  };
  const answer = streamText({
    model: make(await import(provider)),
    prompt: question,
    tools,
    stopWhen: stepCountIs(4),
    maxRetries: 0,
    onError: ({ error }) => {
      throw error;
    },
  });
  return await answer.text;
}

console.log(JSON.stringify({ text: await clients[client](), calls }));
