import { type BusUnderTest, busContract } from './contract.ts';
import { NatsUnderTest } from './nats-under-test.ts';

busContract('NATS', async () => {
  const nats = await NatsUnderTest.startForContract();
  const under: BusUnderTest = {
    bus: await nats.readyBus(),
    transaction: (act) => nats.catalog.transaction(act),
    async reopen() {
      await under.bus.close();
      await nats.catalog.close();
      await nats.openCatalog();
      under.bus = nats.openBus();
    },
    close: () => nats.end(),
  };
  return under;
});
