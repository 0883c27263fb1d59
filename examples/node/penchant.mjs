// Captures a few posts, then prints the interests and the recommendations that follow from them.
// Usage: node penchant.mjs [host:port]

import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../proto", import.meta.url));
const SECONDS = 10;

const ITEMS = [
  { id: "trail-guide", title: "A guide to hiking trails in the Alps", categories: ["outdoors"] },
  { id: "boots", title: "How to choose hiking boots for mountain trails", categories: ["outdoors"] },
  { id: "bebop", title: "Great bebop saxophone records", categories: ["music"] },
  { id: "sourdough", title: "Sourdough bread for beginners", categories: ["food"] },
  { id: "huangshan", title: "黄山徒步路线指南", categories: ["outdoors"] },
];
const POSTS = [
  "Back from a three-day hike over mountain trails, what a view!",
  "Which boots do you wear on rocky trails?",
  "周末去爬山，山上的云海太美了",
];

/** Calls of a service as functions: `await service.GetProfile({ user_id: "u" })`. */
function connect(Service, target) {
  const client = new Service(target, grpc.credentials.createInsecure());
  const call = (method) => (request) =>
    promisify(client[method].bind(client))(request, { deadline: Date.now() + SECONDS * 1000 });
  const methods = Object.keys(Service.service);
  return { close: () => client.close(), ...Object.fromEntries(methods.map((name) => [name, call(name)])) };
}

function loadServices() {
  const files = ["interest", "recommendation", "catalog"].map((name) => `penchant/v1/${name}_service.proto`);
  const definition = protoLoader.loadSync(files, {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
  });
  return grpc.loadPackageDefinition(definition).penchant.v1;
}

async function main(target) {
  const { InterestService, RecommendationService, CatalogService } = loadServices();
  const interests = connect(InterestService, target);
  const recommendations = connect(RecommendationService, target);
  const catalog = connect(CatalogService, target);
  const user_id = `node-${randomUUID()}`;

  const { upserted_count } = await catalog.UpsertItems({ items: ITEMS });
  console.log(`${upserted_count} items in the catalogue`);

  for (const text of POSTS) {
    // The id makes the call safe to repeat: the same signal is captured once.
    const signal = { id: randomUUID(), user_id, post: { text } };
    const { profile_version } = await interests.Capture({ signal });
    console.log(`captured, profile version ${profile_version}: ${text}`);
  }

  const { profile } = await interests.GetProfile({ user_id });
  for (const { label, weight, keywords } of profile.interests) {
    console.log(`interest ${label} (${(weight * 100).toFixed(0)} %): ${keywords.join(", ")}`);
  }

  const answer = await recommendations.Recommend({ user_id, page_size: 3 });
  for (const { item_id, score } of answer.recommendations) {
    console.log(`recommended ${item_id} (${score.toFixed(3)})`);
  }

  for (const service of [interests, recommendations, catalog]) service.close();
}

try {
  await main(process.argv[2] ?? "127.0.0.1:50051");
} catch (error) {
  console.error(`failed: ${error.message}`);
  process.exitCode = 1;
}
