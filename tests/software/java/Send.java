import org.apache.skywalking.apm.agent.core.context.ContextCarrier;
import org.apache.skywalking.apm.agent.core.context.ContextManager;
import org.apache.skywalking.apm.agent.core.context.trace.AbstractSpan;
import org.apache.skywalking.apm.agent.core.context.trace.SpanLayer;
import org.apache.skywalking.apm.network.trace.component.ComponentsDefine;

/** java -javaagent:skywalking-agent.jar Send COUNT LINGER_MILLISECONDS: segments of one entry span each, by the agent's own API. */
public class Send {
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        // What is made before the agent has connected is thrown away by it.
        Thread.sleep(Long.getLong("before", 4000));
        for (int number = 0; number < count; number++) {
            AbstractSpan span = ContextManager.createEntrySpan("/n/" + number, new ContextCarrier());
            span.setComponent(ComponentsDefine.TOMCAT);
            SpanLayer.asHttp(span);
            ContextManager.stopSpan();
            Thread.sleep(5);
        }
        System.out.println("made " + count);
        Thread.sleep(Long.parseLong(arguments[1]));
    }
}
