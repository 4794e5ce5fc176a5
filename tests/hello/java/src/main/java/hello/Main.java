package hello;

import io.temporal.activity.ActivityInterface;
import io.temporal.activity.ActivityOptions;
import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowOptions;
import io.temporal.client.WorkflowStub;
import io.temporal.serviceclient.WorkflowServiceStubs;
import io.temporal.serviceclient.WorkflowServiceStubsOptions;
import io.temporal.worker.Worker;
import io.temporal.worker.WorkerFactory;
import io.temporal.workflow.QueryMethod;
import io.temporal.workflow.SignalMethod;
import io.temporal.workflow.Workflow;
import io.temporal.workflow.WorkflowInterface;
import io.temporal.workflow.WorkflowMethod;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/**
 * A hello world of the Java SDK: an activity, a timer, a signal and a query. Exits with 0 if all
 * of it worked. EVERSPAN_ADDRESS names the server.
 */
public final class Main {
  private static final Duration PATIENCE = Duration.ofSeconds(30);

  @ActivityInterface
  public interface Activities {
    String greet(String name);
  }

  public static final class ActivitiesImpl implements Activities {
    @Override
    public String greet(String name) {
      return "Hello, " + name + "!";
    }
  }

  @WorkflowInterface
  public interface Hello {
    @WorkflowMethod
    String hello(String name);

    @SignalMethod
    void go(String word);

    @QueryMethod
    String state();
  }

  /** Greets, rests, waits for a signal, and answers a query about where it is. */
  public static final class HelloImpl implements Hello {
    private final Activities activities =
        Workflow.newActivityStub(
            Activities.class,
            ActivityOptions.newBuilder().setStartToCloseTimeout(PATIENCE).build());
    private String state = "started";
    private String word;

    @Override
    public String hello(String name) {
      String greeting = activities.greet(name);
      state = "greeted";
      Workflow.sleep(Duration.ofMillis(10));
      state = "waiting";
      Workflow.await(() -> word != null);
      state = "done";
      return greeting + " " + word;
    }

    @Override
    public void go(String word) {
      this.word = word;
    }

    @Override
    public String state() {
      return state;
    }
  }

  private static void run(String address) throws Exception {
    WorkflowServiceStubs service =
        WorkflowServiceStubs.newConnectedServiceStubs(
            WorkflowServiceStubsOptions.newBuilder().setTarget(address).build(), PATIENCE);
    String id = "hello-java-" + UUID.randomUUID();
    WorkflowClient client = WorkflowClient.newInstance(service);
    WorkerFactory factory = WorkerFactory.newInstance(client);
    try {
      Worker worker = factory.newWorker(id);
      worker.registerWorkflowImplementationTypes(HelloImpl.class);
      worker.registerActivitiesImplementations(new ActivitiesImpl());
      factory.start();
      Hello workflow =
          client.newWorkflowStub(
              Hello.class,
              WorkflowOptions.newBuilder().setWorkflowId(id).setTaskQueue(id).build());
      WorkflowClient.start(workflow::hello, "Java");
      while (!workflow.state().equals("waiting")) {
        Thread.onSpinWait();
      }
      workflow.go("Goodbye.");
      String result =
          WorkflowStub.fromTyped(workflow)
              .getResult(PATIENCE.toSeconds(), TimeUnit.SECONDS, String.class);
      if (!result.equals("Hello, Java! Goodbye.")) {
        throw new AssertionError("got " + result);
      }
      System.out.println(result);
    } finally {
      factory.shutdownNow();
      factory.awaitTermination(10, TimeUnit.SECONDS);
      service.shutdownNow();
      service.awaitTermination(10, TimeUnit.SECONDS);
    }
  }

  public static void main(String[] arguments) {
    String address = System.getenv().getOrDefault("EVERSPAN_ADDRESS", "127.0.0.1:7233");
    try {
      run(address);
      System.exit(0);
    } catch (Throwable error) {
      error.printStackTrace();
      System.exit(1);
    }
  }

  private Main() {}
}
